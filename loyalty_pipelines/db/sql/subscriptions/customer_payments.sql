-- The payments of touched customers: what they name is read, whoever it belongs to. Gone at the end of the transaction.
-- Index: the shop's on customer; one scan where there is none.
CREATE TEMPORARY TABLE customer_payments ON COMMIT DROP AS
SELECT p.*
FROM (
    SELECT
        array_agg(t.merchant_id) AS merchant_ids,
        array_agg(t.customer_id) AS ids
    FROM touched_customers AS t
) AS k
CROSS JOIN LATERAL loyalty_source.payments_of_customers(k.merchant_ids, k.ids) AS p;
