-- One mail by its number. Reads only; notifications_pkey where the merchant is known, else all mails.
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
WHERE n.notification_id = :notification_id AND (CAST(:merchant_id AS text) IS NULL OR n.merchant_id = :merchant_id);
