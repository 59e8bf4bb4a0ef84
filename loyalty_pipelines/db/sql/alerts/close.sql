-- Somebody says that a problem is over. Its observer is kept out by its lock; a sender's lease stays its own. Repeating it
-- closes nothing. Index alert_problems_open.
UPDATE loyalty.alert_problems
SET ended_at = now(), closed_at = now(), closed_by = :actor, close_reason = :reason
WHERE name = :name AND ended_at IS NULL AND source = :source
RETURNING *;
