-- Findings, the ones that cost most first. Indexes findings_open, findings_by_number.
SELECT
    f.merchant_id,
    f.finding_id,
    f.class AS class_name,
    f.severity,
    f.object_type,
    f.object_id,
    f.points_difference,
    f.amount_at_risk,
    f.currency,
    f.evidence,
    f.policy,
    f.times_seen,
    f.first_seen_at,
    f.last_seen_at,
    f.closed_at,
    f.accepted_at,
    f.accepted_by,
    f.accepted_because,
    f.run_id
FROM loyalty.findings AS f
WHERE
    f.subject = :subject
    AND (CAST(:is_closed_too AS boolean) OR (f.closed_at IS NULL AND f.accepted_at IS NULL))
    AND (CAST(:merchant_id AS text) IS NULL OR f.merchant_id = CAST(:merchant_id AS text))
    AND (CAST(:classes AS text[]) IS NULL OR f.class = ANY(CAST(:classes AS text[])))
    AND (CAST(:customer_id AS text) IS NULL OR f.evidence ->> 'customer_id' = CAST(:customer_id AS text))
    AND (CAST(:finding_id AS bigint) IS NULL OR f.finding_id = CAST(:finding_id AS bigint))
ORDER BY f.closed_at IS NOT NULL OR f.accepted_at IS NOT NULL, abs(f.points_difference) DESC, f.amount_at_risk DESC,
    f.first_seen_at, f.finding_id
LIMIT CAST(:row_limit AS bigint);
