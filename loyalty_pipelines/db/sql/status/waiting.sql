-- Merchants with waiting orders, those that wait longest first, and the totals over all of them. Reads the inbox once
--; reads only.
SELECT
    w.merchant_id,
    w.orders,
    w.oldest_at,
    now() - w.oldest_at AS age,
    sum(w.orders) OVER () AS all_orders,
    count(*) OVER () AS all_merchants
FROM (
    SELECT
        i.merchant_id,
        count(*) AS orders,
        min(i.enqueued_at) AS oldest_at
    FROM loyalty.order_inbox AS i
    GROUP BY i.merchant_id
) AS w
ORDER BY w.oldest_at, w.merchant_id
LIMIT :row_limit;
