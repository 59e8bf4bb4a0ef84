-- The orders that changed, and those of payments that changed. Gone at the end of the transaction.
CREATE TEMPORARY TABLE changed_orders ON COMMIT DROP AS
SELECT
    c.merchant_id,
    c.object_id AS order_id
FROM changed_objects AS c
WHERE c.relation = 'orders'
UNION
SELECT
    p.merchant_id,
    p.order_id
FROM changed_payments AS p
WHERE p.order_id IS NOT NULL;
