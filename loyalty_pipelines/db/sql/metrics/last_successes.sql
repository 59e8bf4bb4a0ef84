-- When each job last succeeded and failed, per merchant. Reads only; merchant_jobs_pkey, expiry_runs_by_time backwards,
-- award_batches_pkey backwards.
SELECT s.*
FROM loyalty.last_successes AS s
WHERE CAST(:merchant_id AS text) IS NULL OR s.merchant_id = :merchant_id
ORDER BY s.merchant_id, s.job;
