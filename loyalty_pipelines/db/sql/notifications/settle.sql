-- Marks a claimed mail as sent, failed, parked or void. Repeating it finds it settled. A mail that got another date
-- meanwhile is another mail and stays. Index notifications_pkey.
-- Not flushed to disk at once: the server commits half a second later at most. A sender that dies loses nothing by
-- that; only a PostgreSQL that dies itself forgets its last marks, and those mails are sent again. A flush per mail
-- would cost more than the mail.
WITH durability AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true) AS setting
)

UPDATE loyalty.notifications AS n
SET
    status = :status,
    attempts = n.attempts + CAST(:tries AS integer),
    leased_until = NULL,
    settled_at = now(),
    last_error = :error,
    sent_as = :sent_as
FROM durability
WHERE
    n.merchant_id = :merchant_id
    AND n.notification_id = :notification_id
    AND n.dedupe_key = :dedupe_key
    AND n.status = 'pending'
    AND durability.setting = 'off';
