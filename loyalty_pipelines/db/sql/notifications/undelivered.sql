-- What waits and what was given up, per merchant, the one with the oldest mail first. Reads only; notifications_due and
-- notifications_not_delivered.
SELECT
    n.merchant_id,
    count(*) FILTER (WHERE n.status = 'pending') AS pending,
    count(*) FILTER (WHERE n.status = 'failed') AS failed,
    extract(EPOCH FROM now() - min(n.waits_since)) AS oldest_seconds
FROM (
    SELECT
        p.merchant_id,
        p.status,
        p.waits_since
    FROM loyalty.notifications AS p
    WHERE p.status = 'pending'
    UNION ALL
    SELECT
        f.merchant_id,
        f.status,
        f.waits_since
    FROM loyalty.notifications AS f
    WHERE f.status = 'failed'
) AS n
GROUP BY n.merchant_id
ORDER BY oldest_seconds DESC, n.merchant_id;
