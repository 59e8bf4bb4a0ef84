-- The orders that a sweep of the merchant would enqueue, oldest first, and how many there are in all. Reads only.
SELECT
    d.order_id,
    d.customer_id,
    d.outcome,
    d.detail,
    d.target_points,
    d.in_force_points,
    d.points_missing,
    d.paid_at,
    d.updated_at
FROM loyalty.order_differences(
    CAST(:merchant_id AS text), CAST(:paid_from AS timestamptz), CAST(:paid_to AS timestamptz)
) AS d
ORDER BY d.paid_at, d.order_id
LIMIT :row_limit;
