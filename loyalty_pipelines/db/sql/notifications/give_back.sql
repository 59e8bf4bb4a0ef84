-- Ends the lease of mails that this sender did not come to; they are due as they were before. Repeating it finds the
-- lease gone. Index notifications_pkey.
UPDATE loyalty.notifications AS n
SET
    leased_until = NULL,
    next_attempt_at = mine.due_at
FROM unnest(CAST(:notification_ids AS bigint[]), CAST(:due_ats AS timestamptz[])) AS mine (notification_id, due_at)
WHERE
    n.merchant_id = :merchant_id
    AND n.notification_id = mine.notification_id
    AND n.status = 'pending'
    AND n.leased_until = :leased_until;
