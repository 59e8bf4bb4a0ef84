-- Ends the lease of what was not sent, or not answered (counted as 1); another sender's stays. A lease is given back once:
-- repeating it changes nothing. Key: alert_problems_pkey.
UPDATE loyalty.alert_problems
SET leased_until = NULL, unanswered = unanswered + :unanswered
WHERE problem_id = ANY(CAST(:problem_ids AS bigint[])) AND leased_until = :leased_until;
