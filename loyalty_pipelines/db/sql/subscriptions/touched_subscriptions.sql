-- The subscriptions to compare: of touched customers, changed ones, and those that touched orders made or payments of
-- both name. Gone at the end of the transaction. Indexes: the shop's on id, order and customer; one scan where there
-- is none.
CREATE TEMPORARY TABLE source_subscriptions ON COMMIT DROP AS
WITH known AS MATERIALIZED (
    SELECT s.*
    FROM changed_subscriptions AS s
    UNION ALL
    SELECT s.*
    FROM (
        SELECT
            array_agg(t.merchant_id) AS merchant_ids,
            array_agg(t.customer_id) AS ids
        FROM touched_customers AS t
    ) AS k
    CROSS JOIN LATERAL loyalty_source.subscriptions_of_customers(k.merchant_ids, k.ids) AS s
)

SELECT DISTINCT ON (s.merchant_id, s.subscription_id) s.*
FROM (
    SELECT s.*
    FROM known AS s
    UNION ALL
    SELECT s.*
    FROM (
        SELECT
            array_agg(w.merchant_id) AS merchant_ids,
            array_agg(w.order_id) AS ids
        FROM (
            SELECT
                t.merchant_id,
                t.order_id
            FROM touched_orders AS t
            -- Those of these are among the changed ones.
            EXCEPT
            SELECT
                c.merchant_id,
                c.order_id
            FROM changed_orders AS c
        ) AS w
    ) AS k
    CROSS JOIN LATERAL loyalty_source.subscriptions_of_orders(k.merchant_ids, k.ids) AS s
    UNION ALL
    SELECT s.*
    FROM (
        SELECT
            array_agg(w.merchant_id) AS merchant_ids,
            array_agg(w.subscription_id) AS ids
        FROM (
            SELECT
                p.merchant_id,
                p.subscription_id
            FROM customer_payments AS p
            WHERE p.subscription_id IS NOT NULL
            EXCEPT
            SELECT
                s.merchant_id,
                s.subscription_id
            FROM known AS s
        ) AS w
    ) AS k
    CROSS JOIN LATERAL loyalty_source.subscriptions_by_ids(k.merchant_ids, k.ids) AS s
) AS s;
