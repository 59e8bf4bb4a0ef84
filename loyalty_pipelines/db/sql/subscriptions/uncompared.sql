-- Merchants that were not compared in full within the last :hours hours, and merchants whose last comparison failed.
-- One that never was counts from its oldest change that waits, and from the newest comparison of anybody: where nights go
-- on, the next one takes it, too. Reads small tables and the inbox only; merchant_jobs_pkey.
WITH jobs AS MATERIALIZED (
    SELECT
        j.merchant_id,
        j.succeeded_at,
        CASE WHEN j.failed_at > coalesce(j.succeeded_at, '-infinity') THEN j.failure END AS failure
    FROM loyalty.merchant_jobs AS j
    WHERE j.job = :job
),

waiting AS MATERIALIZED (
    SELECT
        i.merchant_id,
        min(i.noted_at) AS noted_at
    FROM loyalty.subscription_inbox AS i
    GROUP BY i.merchant_id
)

SELECT
    m.merchant_id,
    j.succeeded_at AS compared_at,
    j.failure
FROM (
    SELECT s.merchant_id COLLATE "C" AS merchant_id FROM loyalty_source.merchants AS s
    UNION
    SELECT f.merchant_id FROM loyalty.findings AS f WHERE f.subject = :subject AND f.closed_at IS NULL
    UNION
    SELECT i.merchant_id FROM waiting AS i
) AS m
CROSS JOIN (SELECT max(a.applied_at) AS applied_at FROM loyalty.source_mapping AS a) AS mapping
CROSS JOIN (SELECT max(n.succeeded_at) AS succeeded_at FROM jobs AS n) AS newest
LEFT JOIN jobs AS j ON j.merchant_id = m.merchant_id
LEFT JOIN waiting AS w ON w.merchant_id = m.merchant_id
WHERE
    m.merchant_id IS NOT NULL
    AND (
        j.failure IS NOT NULL
        OR coalesce(j.succeeded_at, least(w.noted_at, greatest(mapping.applied_at, newest.succeeded_at)))
        < now() - make_interval(hours => CAST(:hours AS integer))
    )
ORDER BY j.failure IS NULL, j.succeeded_at NULLS FIRST, m.merchant_id;
