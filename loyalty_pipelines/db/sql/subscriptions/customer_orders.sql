-- The orders of touched customers for a plan. Gone at the end of the transaction. Index: the shop's on customer; one scan
-- where there is none.
CREATE TEMPORARY TABLE customer_orders ON COMMIT DROP AS
SELECT o.*
FROM (
    SELECT
        array_agg(t.merchant_id) AS merchant_ids,
        array_agg(t.customer_id) AS ids
    FROM touched_customers AS t
) AS k
CROSS JOIN LATERAL loyalty_source.orders_of_customers(k.merchant_ids, k.ids) AS o
WHERE o.plan_id IS NOT NULL;
