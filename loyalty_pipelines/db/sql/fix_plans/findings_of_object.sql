-- Findings of a merchant or of one object, closed ones too, the newest first: what happened to it. Only reads. Index
-- findings_by_object.
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
    AND (CAST(:merchant_id AS text) IS NULL OR f.merchant_id = CAST(:merchant_id AS text))
    AND (CAST(:object_type AS text) IS NULL OR f.object_type = CAST(:object_type AS text))
    AND (CAST(:object_id AS text) IS NULL OR f.object_id = CAST(:object_id AS text))
ORDER BY f.first_seen_at DESC, f.finding_id DESC
LIMIT CAST(:row_limit AS bigint);
