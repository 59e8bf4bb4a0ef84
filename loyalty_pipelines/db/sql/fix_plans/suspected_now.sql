-- What the classes say now of the objects of these plans, whose finding must be open still. What is not suspected, or is
-- younger than its grace period, has no row. Only reads. Reads the temporary tables of the comparison, fix_plans_pkey,
-- findings_by_number.
SELECT
    p.plan_id,
    p.finding_id,
    p.merchant_id,
    p.class AS class_name,
    p.object_type,
    p.object_id,
    s.policy,
    s.amount_at_risk,
    coalesce(s.currency, m.currency) AS currency,
    CAST(s.evidence AS text) AS evidence_text
FROM loyalty.fix_plans AS p
INNER JOIN loyalty.findings AS f
    ON f.merchant_id = p.merchant_id AND f.finding_id = p.finding_id AND f.closed_at IS NULL AND f.accepted_at IS NULL
INNER JOIN checked_merchants AS m ON m.merchant_id = p.merchant_id
INNER JOIN (
    SELECT DISTINCT ON (t.merchant_id, t.class, t.object_type, t.object_id) t.*
    FROM suspected AS t
    WHERE t.ripe_at <= CAST(:as_of AS timestamptz)
    ORDER BY t.merchant_id, t.class, t.object_type, t.object_id, t.amount_at_risk DESC
) AS s
    ON
        s.merchant_id = p.merchant_id
        AND s.class = p.class
        AND s.object_type = p.object_type
        AND s.object_id = p.object_id
WHERE p.merchant_id = :merchant_id AND p.plan_id = ANY(CAST(:plan_ids AS bigint[]));
