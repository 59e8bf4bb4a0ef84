-- Orders that were paid for a plan and whose subscription was never made: a webhook was lost.
INSERT INTO sample_shop.customers (merchant_id, id, created_at)
SELECT 'm' || n % {merchants}, 'lost{round}-' || n, now() - interval '9 days' FROM generate_series(1, {lost}) AS n;
INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, currency, status, paid_at, created_at, updated_at, plan_id)
SELECT 'm' || n % {merchants}, 'lost{round}-' || n, 'lost{round}-' || n, 6, 'EUR', 'paid', t.at, t.at, t.at, 'p1'
FROM generate_series(1, {lost}) AS n CROSS JOIN (SELECT now() - interval '1 day' AS at) AS t;
INSERT INTO sample_shop.payments (
    merchant_id, id, order_id, customer_id, amount, currency, status, captured_at, created_at, updated_at
)
SELECT merchant_id, 'y' || id, id, customer_id, total, 'EUR', 'captured', paid_at, paid_at, paid_at
FROM sample_shop.orders WHERE id LIKE 'lost{round}-%'
