-- Which merchants have mails that are due. Reads two index entries per merchant (a loose index scan over
-- notifications_due), however many wait. Reads only.
WITH RECURSIVE waiting AS (
    (
        SELECT
            n.merchant_id,
            n.next_attempt_at
        FROM loyalty.notifications AS n
        WHERE n.status = 'pending'
        ORDER BY n.merchant_id, n.next_attempt_at
        LIMIT 1
    )
    UNION ALL
    SELECT
        following.merchant_id,
        following.next_attempt_at
    FROM waiting
    CROSS JOIN LATERAL (
        SELECT
            n.merchant_id,
            n.next_attempt_at
        FROM loyalty.notifications AS n
        WHERE n.status = 'pending' AND n.merchant_id > waiting.merchant_id
        ORDER BY n.merchant_id, n.next_attempt_at
        LIMIT 1
    ) AS following
)

SELECT waiting.merchant_id
FROM waiting
WHERE waiting.next_attempt_at <= now();
