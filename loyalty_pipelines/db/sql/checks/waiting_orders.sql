-- How many orders wait per merchant, and since when. Reads the inbox, which is short unless something is wrong.
SELECT
    i.merchant_id,
    count(*) AS orders,
    min(i.enqueued_at) AS oldest_at,
    extract(EPOCH FROM now() - min(i.enqueued_at)) AS oldest_seconds
FROM loyalty.order_inbox AS i
GROUP BY i.merchant_id
ORDER BY oldest_at
LIMIT :row_limit;
