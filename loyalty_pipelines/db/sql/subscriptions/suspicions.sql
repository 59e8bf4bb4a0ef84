-- What the classes suspect of the chosen objects now, ripe or not: what a fix asks before it writes.
SELECT
    s.merchant_id,
    s.class AS class_name,
    s.object_type,
    s.object_id,
    s.policy,
    s.amount_at_risk,
    coalesce(s.currency, m.currency) AS currency,
    s.evidence,
    s.ripe_at
FROM suspected AS s
INNER JOIN checked_merchants AS m ON m.merchant_id = s.merchant_id
ORDER BY s.merchant_id, s.class, s.object_type, s.object_id;
