-- Plans of a merchant that may be applied: automatic ones, and those that a person approved; those that are too old
-- are settled before. Only reads. Index
-- fix_plans_waiting.
SELECT p.plan_id
FROM loyalty.fix_plans AS p
WHERE
    p.merchant_id = :merchant_id
    AND p.status IN ('planned', 'approved')
    AND (p.status = 'approved' OR p.policy = 'A')
    AND (CAST(:plan_ids AS bigint[]) IS NULL OR p.plan_id = ANY(CAST(:plan_ids AS bigint[])))
ORDER BY p.plan_id;
