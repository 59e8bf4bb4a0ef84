-- The merchants that the shop lists, or that something is known or noted of, and whether looking at what changed is
-- enough: it is not where nothing was ever compared in full, or the last time failed. Reads the small tables only, and
-- the inbox.
SELECT
    m.merchant_id,
    coalesce(j.succeeded_at > coalesce(j.failed_at, '-infinity'), false) AS is_marked
FROM (
    SELECT s.merchant_id COLLATE "C" AS merchant_id FROM loyalty_source.merchants AS s
    UNION
    SELECT i.merchant_id FROM loyalty.subscription_inbox AS i
    UNION
    SELECT f.merchant_id FROM loyalty.findings AS f WHERE f.subject = :subject AND f.closed_at IS NULL
) AS m
LEFT JOIN loyalty.merchant_jobs AS j ON j.merchant_id = m.merchant_id AND j.job = :job
WHERE
    m.merchant_id IS NOT NULL
    AND (CAST(:merchant_ids AS text[]) IS NULL OR m.merchant_id = ANY(CAST(:merchant_ids AS text[])))
ORDER BY m.merchant_id;
