-- How many awarded orders were paid in [:paid_from, :paid_until) and still earn: what a version of that time touches.
-- Reads only: order_points_pkey, and the shop's orders of the merchant once.
SELECT count(DISTINCT op.order_id) AS orders
FROM loyalty_source.orders_of_merchant(CAST(:merchant_id AS text)) AS o
INNER JOIN loyalty.order_points AS op ON op.merchant_id = :merchant_id AND op.order_id = o.order_id COLLATE "C"
WHERE
    o.paid_at >= CAST(:paid_from AS timestamptz)
    AND (CAST(:paid_until AS timestamptz) IS NULL OR o.paid_at < CAST(:paid_until AS timestamptz))
    AND o.status IN ('paid', 'partially_refunded');
