-- Locks plans that may be applied, in the order of their numbers; those that somebody else applied meanwhile are left out.
-- Safe to repeat. Index fix_plans_pkey.
SELECT p.plan_id
FROM loyalty.fix_plans AS p
WHERE
    p.merchant_id = :merchant_id
    AND p.plan_id = ANY(CAST(:plan_ids AS bigint[]))
    AND p.status IN ('planned', 'approved')
    AND (p.status = 'approved' OR p.policy = 'A')
    AND p.expires_at > now()
ORDER BY p.plan_id
FOR UPDATE;
