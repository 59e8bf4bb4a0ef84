-- Subscriptions that are not compared, and decide to which one a payment belongs: those that the payments name, and others
-- of the orders of those that are compared. Indexes: the shop's on id and order.
INSERT INTO source_subscriptions
SELECT DISTINCT ON (n.merchant_id, n.subscription_id) n.*
FROM (
    SELECT s.*
    FROM (
        SELECT
            array_agg(w.merchant_id) AS merchant_ids,
            array_agg(w.subscription_id) AS ids
        FROM (
            SELECT DISTINCT
                p.merchant_id,
                p.subscription_id
            FROM source_payments AS p
            LEFT JOIN source_subscriptions AS o
                ON o.merchant_id = p.merchant_id AND o.subscription_id = p.subscription_id
            WHERE p.subscription_id IS NOT NULL AND o.subscription_id IS NULL
        ) AS w
    ) AS k
    CROSS JOIN LATERAL loyalty_source.subscriptions_by_ids(k.merchant_ids, k.ids) AS s
    UNION ALL
    SELECT s.*
    FROM (
        SELECT
            array_agg(w.merchant_id) AS merchant_ids,
            array_agg(w.order_id) AS ids
        FROM (
            SELECT
                o.merchant_id,
                o.order_id
            FROM source_subscriptions AS o
            WHERE o.order_id IS NOT NULL
            EXCEPT
            SELECT
                t.merchant_id,
                t.order_id
            FROM touched_orders AS t
        ) AS w
    ) AS k
    CROSS JOIN LATERAL loyalty_source.subscriptions_of_orders(k.merchant_ids, k.ids) AS s
) AS n
WHERE
    NOT EXISTS (
        SELECT 1
        FROM source_subscriptions AS o
        WHERE o.merchant_id = n.merchant_id AND o.subscription_id = n.subscription_id
    );
