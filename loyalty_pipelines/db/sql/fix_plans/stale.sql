-- Plans that don't fit what the shop shows now, each with its reason. Safe to repeat. Index fix_plans_by_number.
UPDATE loyalty.fix_plans AS p
SET
    status = 'stale',
    failure = n.reason
FROM unnest(CAST(:plan_ids AS bigint[]), CAST(:reasons AS text[])) AS n (plan_id, reason)
WHERE p.plan_id = n.plan_id AND p.status IN ('planned', 'approved');
