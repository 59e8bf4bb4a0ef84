-- Gives up on mails by hand: one that waits or failed, or the failed ones of a merchant or (both NULL) of all. Not one
-- that a sender is at work on. The reason's first words keep it from being taken for a server's answer. Repeating it finds
-- none. Index notifications_pkey or notifications_not_delivered.
UPDATE loyalty.notifications AS n
SET
    status = 'parked',
    leased_until = NULL,
    settled_at = now(),
    last_error = 'by hand: ' || CAST(:reason AS text)
WHERE
    (n.status = 'failed' OR (n.status = 'pending' AND n.notification_id = CAST(:notification_id AS bigint)))
    AND (CAST(:merchant_id AS text) IS NULL OR n.merchant_id = :merchant_id)
    AND (CAST(:notification_id AS bigint) IS NULL OR n.notification_id = :notification_id)
    AND (n.leased_until IS NULL OR n.leased_until <= now());
