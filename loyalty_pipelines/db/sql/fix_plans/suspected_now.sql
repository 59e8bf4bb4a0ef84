-- What the classes say now, of what is no younger than its grace period; of several about one object the costliest. Only
-- reads the temporary tables of the comparison.
SELECT DISTINCT ON (s.merchant_id, s.class, s.object_type, s.object_id)
    s.merchant_id,
    s.class AS class_name,
    s.object_type,
    s.object_id,
    s.policy,
    s.amount_at_risk,
    coalesce(s.currency, m.currency) AS currency,
    CAST(s.evidence AS text) AS evidence_text
FROM suspected AS s
INNER JOIN checked_merchants AS m ON m.merchant_id = s.merchant_id
WHERE s.ripe_at <= CAST(:as_of AS timestamptz)
ORDER BY s.merchant_id, s.class, s.object_type, s.object_id, s.amount_at_risk DESC;
