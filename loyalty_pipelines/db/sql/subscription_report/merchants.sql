-- The merchants of the shop, and those that something is known of; when each was compared in full. merchant_jobs_pkey.
SELECT
    m.merchant_id,
    j.succeeded_at AS compared_at,
    CASE WHEN j.failed_at > coalesce(j.succeeded_at, '-infinity') THEN j.failure END AS failure
FROM (
    SELECT s.merchant_id COLLATE "C" AS merchant_id FROM loyalty_source.merchants AS s
    UNION
    SELECT f.merchant_id FROM loyalty.findings AS f WHERE f.subject = :subject AND f.closed_at IS NULL
) AS m
LEFT JOIN loyalty.merchant_jobs AS j ON j.merchant_id = m.merchant_id AND j.job = :job
WHERE
    m.merchant_id IS NOT NULL
    AND (CAST(:merchant_id AS text) IS NULL OR m.merchant_id = CAST(:merchant_id AS text))
ORDER BY m.merchant_id;
