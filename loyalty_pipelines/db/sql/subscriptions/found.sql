-- What is suspected and ripe is found. Of what was looked at only, where that is not everything.
INSERT INTO found (
    merchant_id, class, object_type, object_id, points_difference, evidence, policy, amount_at_risk, currency
)
SELECT DISTINCT ON (s.merchant_id, s.class, s.object_type, s.object_id)
    s.merchant_id,
    s.class,
    s.object_type,
    s.object_id,
    0,
    s.evidence,
    s.policy,
    s.amount_at_risk,
    coalesce(s.currency, m.currency)
FROM suspected AS s
INNER JOIN checked_merchants AS m ON m.merchant_id = s.merchant_id
WHERE
    s.ripe_at <= CAST(:as_of AS timestamptz)
    AND (
        NOT CAST(:is_scoped AS boolean)
        OR EXISTS (
            SELECT 1
            FROM found_scope AS l
            WHERE l.merchant_id = s.merchant_id AND l.object_type = s.object_type AND l.object_id = s.object_id
        )
    )
ORDER BY s.merchant_id, s.class, s.object_type, s.object_id, s.amount_at_risk DESC;
