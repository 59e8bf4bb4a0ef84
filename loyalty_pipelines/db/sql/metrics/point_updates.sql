-- Orders and queue items that were tried in the last hour, and how many took more than one try. Reads only;
-- award_batches_by_time, reconciliation_queue_settled, the partial indexes of open items.
SELECT u.*
FROM loyalty.metrics_point_updates AS u
WHERE CAST(:merchant_id AS text) IS NULL OR u.merchant_id = :merchant_id
ORDER BY u.merchant_id;
