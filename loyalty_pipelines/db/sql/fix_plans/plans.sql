-- Plans, the newest first. Only reads. Indexes fix_plans_by_number, fix_plans_by_finding, fix_plans_by_object,
-- fix_plans_waiting.
SELECT
    p.plan_id,
    p.merchant_id,
    p.fix_key,
    p.finding_id,
    p.class AS class_name,
    p.object_type,
    p.object_id,
    p.policy,
    p.action,
    p.target_id,
    CAST(p.before AS text) AS before,
    CAST(p.after AS text) AS after,
    CAST(p.inverse AS text) AS inverse,
    CAST(p.evidence AS text) AS evidence,
    p.amount,
    p.currency,
    p.explanation,
    p.status,
    p.planned_by,
    p.planned_at,
    p.expires_at,
    p.approved_by,
    p.approved_at,
    p.applied_by,
    p.applied_at,
    p.undone_by,
    p.undone_at,
    p.function,
    CAST(p.row_before AS text) AS row_before,
    CAST(p.row_after AS text) AS row_after,
    p.failure,
    p.failures,
    p.run_id
FROM loyalty.fix_plans AS p
WHERE
    (CAST(:merchant_ids AS text[]) IS NULL OR p.merchant_id = ANY(CAST(:merchant_ids AS text[])))
    AND (CAST(:plan_ids AS bigint[]) IS NULL OR p.plan_id = ANY(CAST(:plan_ids AS bigint[])))
    AND (CAST(:finding_ids AS bigint[]) IS NULL OR p.finding_id = ANY(CAST(:finding_ids AS bigint[])))
    AND (CAST(:statuses AS text[]) IS NULL OR p.status = ANY(CAST(:statuses AS text[])))
    AND (CAST(:object_type AS text) IS NULL OR p.object_type = CAST(:object_type AS text))
    AND (CAST(:object_id AS text) IS NULL OR p.object_id = CAST(:object_id AS text))
ORDER BY p.plan_id DESC
LIMIT CAST(:row_limit AS bigint);
