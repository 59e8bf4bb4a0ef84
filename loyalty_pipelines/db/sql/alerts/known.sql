-- The open problems of some sources and those that ended lately, of jobs for as long as their failed runs are remembered,
-- the newest first. Locks nothing: only who holds the lock of the sources' observer writes what is read here. Indexes
-- alert_problems_open, alert_problems_ended.
SELECT p.*
FROM loyalty.alert_problems AS p
WHERE
    p.source = ANY(:sources)
    AND (
        p.ended_at IS NULL
        OR p.ended_at > now() - CAST(:remembered AS interval)
        OR (p.source = 'job' AND p.ended_at > now() - CAST(:forgotten AS interval))
    )
ORDER BY p.problem_id DESC;
