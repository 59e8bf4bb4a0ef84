-- A person approves plans, also such that failed: they are tried again. Safe to repeat. Index fix_plans_by_number.
UPDATE loyalty.fix_plans AS p
SET
    status = 'approved',
    approved_by = :actor,
    approved_at = now(),
    failures = 0
WHERE p.plan_id = ANY(CAST(:plan_ids AS bigint[])) AND p.status IN ('planned', 'failed');
