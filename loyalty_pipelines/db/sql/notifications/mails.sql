-- Mails of the outbox, the newest first: with a status, or those that are not delivered. Reads only; notifications_due
-- and notifications_not_delivered, or all mails where another status is asked for.
SELECT
    n.merchant_id,
    n.notification_id,
    n.dedupe_key,
    n.template,
    n.customer_id,
    n.payload,
    n.status,
    n.attempts,
    n.next_attempt_at,
    n.leased_until,
    n.created_at,
    n.settled_at,
    n.last_error,
    n.sent_as
FROM loyalty.notifications AS n
WHERE
    (CAST(:merchant_id AS text) IS NULL OR n.merchant_id = :merchant_id)
    AND (
        n.status = :status
        OR (CAST(:status AS text) IS NULL AND n.status IN ('pending', 'failed', 'parked'))
    )
ORDER BY n.notification_id DESC
LIMIT :row_limit;
