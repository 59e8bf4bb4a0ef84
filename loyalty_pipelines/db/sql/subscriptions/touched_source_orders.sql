-- The orders of the payments and subscriptions to compare, and the changed ones. Gone at the end of the transaction. Index:
-- the shop's primary key.
CREATE TEMPORARY TABLE source_orders ON COMMIT DROP AS
SELECT c.*
FROM customer_orders AS c
UNION ALL
SELECT o.*
FROM (
    SELECT
        array_agg(w.merchant_id) AS merchant_ids,
        array_agg(w.order_id) AS ids
    FROM (
        SELECT
            t.merchant_id,
            t.order_id
        FROM touched_orders AS t
        UNION
        SELECT
            p.merchant_id,
            p.order_id
        FROM source_payments AS p
        WHERE p.order_id IS NOT NULL
        UNION
        SELECT
            s.merchant_id,
            s.order_id
        FROM source_subscriptions AS s
        WHERE s.order_id IS NOT NULL
        -- Those are read already.
        EXCEPT
        SELECT
            c.merchant_id,
            c.order_id
        FROM customer_orders AS c
    ) AS w
) AS k
CROSS JOIN LATERAL loyalty_source.orders_by_ids(k.merchant_ids, k.ids) AS o;
