-- What the demo shows at its end, per merchant. Reads only.
SELECT
    m.id AS merchant_id,
    m.timezone,
    m.currency,
    orders.orders,
    orders.paid_orders,
    accounts.accounts,
    accounts.points,
    waiting.orders AS waiting
FROM sample_shop.merchants AS m
CROSS JOIN LATERAL (
    SELECT
        count(*) AS orders,
        count(*) FILTER (WHERE o.status IN ('paid', 'partially_refunded')) AS paid_orders
    FROM sample_shop.orders AS o
    WHERE o.merchant_id = m.id
) AS orders
CROSS JOIN LATERAL (
    SELECT
        count(*) AS accounts,
        coalesce(sum(a.balance), 0) AS points
    FROM loyalty.accounts AS a
    WHERE a.merchant_id = m.id
) AS accounts
CROSS JOIN LATERAL (
    SELECT count(*) AS orders
    FROM loyalty.order_inbox AS i
    WHERE i.merchant_id = m.id
) AS waiting
ORDER BY m.id;
