-- Leases problems that this transaction has locked: until the lease ends nobody else announces them, and a sender that dies
-- gives them back with it. Key: alert_problems_pkey.
UPDATE loyalty.alert_problems
SET leased_until = now() + CAST(:lease AS interval)
WHERE problem_id = ANY(CAST(:problem_ids AS bigint[]))
RETURNING problem_id, leased_until;
