-- Orders that are not paid, or not any more, with what is in force of their points. Gone at the end of the transaction.
-- Reads the shop's orders once, in parallel, and looks up the points of those few.
CREATE TEMPORARY TABLE unpaid_orders ON COMMIT DROP AS
SELECT
    o.merchant_id,
    o.order_id,
    o.customer_id,
    o.status,
    coalesce(o.updated_at, o.paid_at, '-infinity') AS updated_at,
    op.account_id,
    op.in_force_points - op.waived_points AS points
FROM source_orders AS o
INNER JOIN loyalty.order_points AS op ON op.merchant_id = o.merchant_id AND op.order_id = o.order_id
WHERE
    o.status IN ('pending', 'refunded', 'cancelled', 'failed')
    AND op.in_force_points > op.waived_points;
