-- The orders that payments or subscriptions of what changed may name: the changed ones, those of changed payments and
-- of touched customers' payments, and those of touched customers for a plan. Gone at the end of the transaction.
CREATE TEMPORARY TABLE touched_orders ON COMMIT DROP AS
SELECT
    c.merchant_id,
    c.order_id
FROM changed_orders AS c
UNION
SELECT
    p.merchant_id,
    p.order_id
FROM customer_payments AS p
WHERE p.order_id IS NOT NULL
UNION
SELECT
    o.merchant_id,
    o.order_id
FROM customer_orders AS o;
