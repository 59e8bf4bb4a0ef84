-- Whether the shop changed something, or a look at something is due. Reads one row of each; subscription_looks_due.
SELECT
    EXISTS (SELECT 1 FROM loyalty.subscription_inbox)
    OR EXISTS (SELECT 1 FROM loyalty.subscription_looks AS l WHERE l.due_at <= now()) AS is_due;
