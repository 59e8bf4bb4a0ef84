-- Findings that are open and not accepted, by merchant, class, policy and currency; those of the last day, and those that
-- were closed in it. Indexes findings_open, findings_closed.
SELECT
    f.merchant_id,
    f.class AS class_name,
    f.severity,
    f.policy,
    f.currency,
    count(*) FILTER (WHERE f.closed_at IS NULL) AS findings,
    count(*) FILTER (WHERE f.closed_at IS NULL AND f.first_seen_at > now() - interval '1 day') AS new_findings,
    count(*) FILTER (WHERE f.closed_at IS NOT NULL) AS closed_findings,
    coalesce(sum(f.amount_at_risk) FILTER (WHERE f.closed_at IS NULL), 0) AS amount,
    min(f.first_seen_at) FILTER (WHERE f.closed_at IS NULL) AS first_seen_at
FROM loyalty.findings AS f
WHERE
    f.subject = :subject
    AND f.accepted_at IS NULL
    AND (f.closed_at IS NULL OR f.closed_at > now() - interval '1 day')
    AND (CAST(:merchant_id AS text) IS NULL OR f.merchant_id = CAST(:merchant_id AS text))
GROUP BY f.merchant_id, f.class, f.severity, f.policy, f.currency
ORDER BY f.merchant_id, f.class, f.severity, f.policy, f.currency;
