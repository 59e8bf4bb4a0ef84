-- Open findings that nobody has accepted, with what a plan is made of. is_repeated: the object was fixed for the same
-- class lately, or a fix of it was undone: automation never fights a person, or itself. Only reads. Indexes findings_open,
-- fix_plans_by_object.
SELECT
    f.finding_id,
    f.merchant_id,
    f.class AS class_name,
    f.object_type,
    f.object_id,
    f.policy,
    f.amount_at_risk,
    f.currency,
    CAST(f.evidence AS text) AS evidence_text,
    coalesce(earlier.is_repeated, false) AS is_repeated
FROM loyalty.findings AS f
LEFT JOIN LATERAL (
    SELECT true AS is_repeated
    FROM loyalty.fix_plans AS p
    WHERE
        p.merchant_id = f.merchant_id
        AND p.object_type = f.object_type
        AND p.object_id = f.object_id
        AND p.class = f.class
        AND (
            p.status = 'undone'
            OR (p.status = 'applied' AND p.applied_at > now() - CAST(:not_again_within AS interval))
        )
    LIMIT 1
) AS earlier ON true
WHERE
    f.closed_at IS NULL
    AND f.accepted_at IS NULL
    AND f.subject = :subject
    AND (CAST(:merchant_ids AS text[]) IS NULL OR f.merchant_id = ANY(CAST(:merchant_ids AS text[])))
    AND (CAST(:finding_ids AS bigint[]) IS NULL OR f.finding_id = ANY(CAST(:finding_ids AS bigint[])))
ORDER BY f.merchant_id, f.finding_id;
