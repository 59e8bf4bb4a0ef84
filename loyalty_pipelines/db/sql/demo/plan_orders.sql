-- 200 paid orders of plans, spread over the merchants, of the last three months, a customer each; subscriptions and payments
-- are made of them. Derived from their numbers, so that every machine gets the same. Safe to repeat: nothing where they were
-- made before.
INSERT INTO sample_shop.orders (
    merchant_id, id, customer_id, total, currency, status, paid_at, created_at, updated_at, plan_id
)
SELECT
    p.merchant_id,
    'S' || lpad(CAST(o.n AS text), 4, '0'),
    'customer-' || o.n,
    p.price,
    p.currency,
    'paid',
    o.placed_at + interval '2 minutes',
    o.placed_at,
    o.placed_at,
    p.id
FROM (
    SELECT
        n,
        'shop-' || lpad(CAST(1 + n % CAST(:merchants AS integer) AS text), 2, '0') AS merchant_id,
        CASE WHEN n % 3 = 2 THEN 'plus' ELSE 'basic' END AS plan_id,
        now() - make_interval(mins => CAST(10000 + (n * 611953) % 110000 AS integer)) AS placed_at
    FROM generate_series(1, 200) AS n
) AS o
INNER JOIN sample_shop.plans AS p ON p.merchant_id = o.merchant_id AND p.id = o.plan_id
WHERE
    NOT EXISTS (
        SELECT 1
        FROM sample_shop.orders AS earlier
        WHERE earlier.id = 'S0001' AND earlier.plan_id IS NOT NULL
    );
