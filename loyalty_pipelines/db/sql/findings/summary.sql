-- Open findings that nobody has accepted, by merchant and class. Index findings_open.
SELECT
    f.merchant_id,
    f.class AS class_name,
    f.severity,
    count(*) AS findings,
    sum(f.points_difference) AS points_difference,
    sum(abs(f.points_difference)) AS points_at_risk,
    sum(f.amount_at_risk) AS amount_at_risk,
    min(f.currency) AS currency,
    min(f.first_seen_at) AS first_seen_at
FROM loyalty.findings AS f
WHERE
    f.closed_at IS NULL
    AND f.accepted_at IS NULL
    AND f.subject = :subject
    AND (CAST(:merchant_ids AS text[]) IS NULL OR f.merchant_id = ANY(CAST(:merchant_ids AS text[])))
GROUP BY f.merchant_id, f.class, f.severity
ORDER BY points_at_risk DESC, findings DESC, f.merchant_id, f.class;
