-- Locks plans of any status, in the order of their numbers: to approve or undo them. Safe to repeat. Index
-- fix_plans_by_number.
SELECT p.plan_id
FROM loyalty.fix_plans AS p
WHERE p.plan_id = ANY(CAST(:plan_ids AS bigint[]))
ORDER BY p.merchant_id, p.plan_id
FOR UPDATE;
