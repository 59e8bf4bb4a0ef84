-- A plan that the shop refused: it is tried again by the next runs, some times. Index fix_plans_by_number.
UPDATE loyalty.fix_plans AS p
SET
    failure = :failure,
    failures = p.failures + 1,
    status = CASE WHEN p.failures + 1 >= CAST(:max_failures AS integer) THEN 'failed' ELSE p.status END,
    run_id = coalesce(CAST(:run_id AS text), p.run_id)
WHERE p.plan_id = :plan_id AND p.status IN ('planned', 'approved');
