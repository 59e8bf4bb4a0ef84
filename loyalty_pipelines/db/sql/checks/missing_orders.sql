-- How many of the orders looked at in the last :hours hours were gone from the shop by then. Index award_batches_by_time.
SELECT
    b.merchant_id,
    sum(b.rows_claimed - b.rows_repeated) AS orders,
    sum(b.orders_missing) AS orders_missing
FROM loyalty.award_batches AS b
WHERE b.recorded_at > now() - make_interval(hours => CAST(:hours AS integer))
GROUP BY b.merchant_id
HAVING sum(b.rows_claimed - b.rows_repeated) > 0
ORDER BY orders_missing DESC, b.merchant_id;
