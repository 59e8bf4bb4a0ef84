-- The newest committed award batch. Reads only; award_batches_by_time backwards, one row.
SELECT
    b.merchant_id,
    b.recorded_at,
    now() - b.recorded_at AS age,
    b.actor,
    b.orders_changed,
    b.points_changed
FROM loyalty.award_batches AS b
ORDER BY b.recorded_at DESC
LIMIT 1;
