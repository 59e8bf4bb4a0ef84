-- The job failed for a merchant just now. When it last succeeded stays. Key: merchant_jobs_pkey.
INSERT INTO loyalty.merchant_jobs AS j (merchant_id, job, failed_at, failed_run_id, failure)
VALUES (:merchant_id, :job, now(), :run_id, :failure)
ON CONFLICT (merchant_id, job) DO UPDATE SET
    failed_at = excluded.failed_at, failed_run_id = excluded.failed_run_id, failure = excluded.failure;
