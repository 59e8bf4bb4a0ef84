-- Jobs whose newest attempt failed for some merchants, the one with the most first. Reads a row per merchant and job.
SELECT
    j.job,
    count(*) AS merchants,
    min(j.failed_at) AS oldest_at
FROM loyalty.merchant_jobs AS j
WHERE coalesce(j.failed_at > j.succeeded_at, j.failed_at IS NOT NULL)
GROUP BY j.job
ORDER BY merchants DESC, j.job;
