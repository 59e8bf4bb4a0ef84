-- Jobs whose newest attempt failed for some merchants within a day and two hours, the one with the most first: what a job
-- has not tried since is another one's matter. Reads a row per merchant and job.
SELECT
    j.job,
    count(*) AS merchants,
    min(j.failed_at) AS oldest_at
FROM loyalty.last_successes AS j
WHERE j.failed_at > coalesce(j.succeeded_at, '-infinity') AND j.failed_at > now() - interval '26 hours'
GROUP BY j.job
ORDER BY merchants DESC, j.job;
