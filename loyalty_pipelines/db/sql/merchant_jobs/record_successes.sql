-- These merchants were served by the job just now. Repeating it moves the instant. Key: merchant_jobs_pkey, in its order.
INSERT INTO loyalty.merchant_jobs AS j (merchant_id, job, succeeded_at, succeeded_run_id)
SELECT
    m.merchant_id,
    CAST(:job AS text),
    now(),
    CAST(:run_id AS text)
FROM unnest(CAST(:merchant_ids AS text[])) AS m (merchant_id)
GROUP BY m.merchant_id
ORDER BY m.merchant_id COLLATE "C"
ON CONFLICT (merchant_id, job) DO UPDATE SET
    succeeded_at = excluded.succeeded_at, succeeded_run_id = excluded.succeeded_run_id;
