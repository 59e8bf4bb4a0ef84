-- Leases the next page of the merchant's due mails, the oldest first; another sender's are skipped. Until the lease ends
-- nobody else sees them as due, and a sender that dies gives them back with it. Repeating it leases the next page.
-- MATERIALIZED: as a part of the join the page would be read, and more rows leased, for every row that it meets.
-- Index notifications_due; notifications_pkey.
WITH due AS MATERIALIZED (
    SELECT
        d.notification_id,
        d.next_attempt_at AS due_at
    FROM loyalty.notifications AS d
    WHERE d.merchant_id = :merchant_id AND d.status = 'pending' AND d.next_attempt_at <= now()
    ORDER BY d.merchant_id, d.next_attempt_at, d.notification_id
    LIMIT :page_size
    FOR NO KEY UPDATE SKIP LOCKED
)

UPDATE loyalty.notifications AS n
SET
    leased_until = now() + CAST(:lease AS interval),
    next_attempt_at = now() + CAST(:lease AS interval)
FROM due
WHERE n.merchant_id = :merchant_id AND n.notification_id = due.notification_id
RETURNING
    n.merchant_id,
    n.notification_id,
    n.dedupe_key,
    n.template,
    n.customer_id,
    n.payload,
    n.attempts,
    n.created_at,
    due.due_at,
    n.leased_until;
