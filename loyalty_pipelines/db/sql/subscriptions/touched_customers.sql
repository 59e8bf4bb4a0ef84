-- Whose rows have to be compared: the customers of what changed, by the payment, its subscription and its order, and by the
-- subscriptions of that order. Gone at the end of the transaction. Index: the shop's primary key.
CREATE TEMPORARY TABLE touched_customers ON COMMIT DROP AS
WITH orders AS MATERIALIZED (
    SELECT
        o.merchant_id,
        o.customer_id
    FROM (
        SELECT
            array_agg(w.merchant_id) AS merchant_ids,
            array_agg(w.order_id) AS ids
        FROM (
            SELECT
                c.merchant_id,
                c.order_id
            FROM changed_orders AS c
            UNION
            -- Of a subscription of nobody: another one of its order may have the payment now.
            SELECT
                s.merchant_id,
                s.order_id
            FROM changed_subscriptions AS s
            WHERE s.customer_id IS NULL AND s.order_id IS NOT NULL
        ) AS w
    ) AS k
    CROSS JOIN LATERAL loyalty_source.orders_by_ids(k.merchant_ids, k.ids) AS o
)

SELECT
    t.merchant_id,
    t.customer_id
FROM (
    SELECT
        c.merchant_id,
        c.object_id AS customer_id
    FROM changed_objects AS c
    WHERE c.relation = 'customers'
    UNION
    SELECT
        p.merchant_id,
        p.customer_id
    FROM changed_payments AS p
    UNION
    SELECT
        o.merchant_id,
        o.customer_id
    FROM orders AS o
    UNION
    SELECT
        s.merchant_id,
        s.customer_id
    FROM changed_subscriptions AS s
) AS t
WHERE t.customer_id IS NOT NULL;
