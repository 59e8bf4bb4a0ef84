-- Open findings that nobody has accepted, by merchant and class. Index findings_open.
SELECT
    f.merchant_id,
    f.class AS class_name,
    f.severity,
    count(*) AS findings,
    -- Too many of one customer and too few of another one don't cancel each other.
    sum(greatest(f.points_difference, 0)) AS points_too_many,
    sum(greatest(-f.points_difference, 0)) AS points_too_few,
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
ORDER BY sum(abs(f.points_difference)) DESC, sum(f.amount_at_risk) DESC, findings DESC, f.merchant_id, f.class;
