-- What the award batches of the last hour did. Reads only; award_batches_by_time,
-- reconciliation_queue_settled, the partial indexes of open items.
SELECT a.*
FROM loyalty.metrics_awards AS a
WHERE CAST(:merchant_id AS text) IS NULL OR a.merchant_id = :merchant_id
ORDER BY a.merchant_id;
