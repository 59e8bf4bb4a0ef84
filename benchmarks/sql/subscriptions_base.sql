-- 1,000,000 orders, 1,200,000 payments and 400,000 subscriptions of {merchants} merchants, all of them right. Half of the
-- subscriptions were renewed: 180,000 by a payment that names them, 20,000 by an order of its own. One in eight is cancelled, one
-- plan in ten is yearly, 580,000 orders are of goods, and 20,000 of those were paid twice and refunded once.
INSERT INTO sample_shop.merchants (id, name, timezone, currency)
SELECT 'm' || m, 'm' || m, 'UTC', 'EUR' FROM generate_series(0, {merchants} - 1) AS m;
INSERT INTO loyalty.programs (merchant_id, version, valid_from, points_per_unit, created_by)
SELECT 'm' || m, 1, '2000-01-01', 1, 'benchmark' FROM generate_series(0, {merchants} - 1) AS m;
INSERT INTO sample_shop.plans (merchant_id, id, name, price, currency, billing_interval)
SELECT 'm' || m, 'p' || p, 'Plan ' || p, 5 + p, 'EUR', CASE WHEN p = 10 THEN 'year' ELSE 'month' END
FROM generate_series(0, {merchants} - 1) AS m CROSS JOIN generate_series(1, 10) AS p;
INSERT INTO sample_shop.customers (merchant_id, id, created_at)
SELECT 'm' || n % {merchants}, 'c' || n, now() - interval '300 days' FROM generate_series(1, {subscriptions}) AS n;
CREATE TABLE sold AS
SELECT
    n,
    'm' || n % {merchants} AS merchant_id,
    'p' || 1 + n % 10 AS plan_id,
    6 + n % 10 AS price,
    n % 2 = 0 AS is_renewed,
    now() - make_interval(hours => CASE WHEN n % 2 = 0 THEN 960 ELSE 240 END + n % 24) AS at,
    CASE WHEN n % 10 = 9 THEN interval '1 year' ELSE interval '1 month' END AS lasts
FROM generate_series(1, {subscriptions}) AS n;
INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, currency, status, paid_at, created_at, updated_at, plan_id)
SELECT merchant_id, 'o' || n, 'c' || n, price, 'EUR', 'paid', at, at, at, plan_id FROM sold
UNION ALL
SELECT merchant_id, 'n' || n, 'c' || n, price, 'EUR', 'paid', at + lasts, at + lasts, at + lasts, plan_id
FROM sold WHERE n % 20 = 0;
INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, currency, status, paid_at, created_at, updated_at)
SELECT 'm' || n % {merchants}, 'g' || n, 'c' || 1 + n % {subscriptions}, 5 + n % 100, 'EUR', 'paid', t.at, t.at, t.at
FROM generate_series(1, {goods}) AS n
CROSS JOIN LATERAL (SELECT now() - make_interval(hours => 120 + n % 4800) AS at) AS t;
INSERT INTO sample_shop.subscriptions (
    merchant_id, id, customer_id, plan_id, order_id, status, price, currency, period_start, period_end, cancelled_at,
    created_at, updated_at
)
SELECT
    merchant_id,
    's' || n,
    'c' || n,
    plan_id,
    'o' || n,
    CASE WHEN n % 8 = 7 THEN 'cancelled' ELSE 'active' END,
    price,
    'EUR',
    CASE WHEN is_renewed THEN at + lasts ELSE at END,
    CASE WHEN is_renewed THEN at + lasts + lasts ELSE at + lasts END,
    CASE WHEN n % 8 = 7 THEN now() - interval '1 day' END,
    at + interval '3 seconds',
    at
FROM sold;
INSERT INTO sample_shop.payments (
    merchant_id, id, order_id, customer_id, amount, currency, status, captured_at, created_at, updated_at
)
SELECT merchant_id, 'y' || id, id, customer_id, total, 'EUR', 'captured', paid_at, paid_at, paid_at FROM sample_shop.orders;
INSERT INTO sample_shop.payments (
    merchant_id, id, order_id, customer_id, amount, refunded, currency, status, captured_at, created_at, updated_at
)
SELECT
    merchant_id, 'd' || id, id, customer_id, total, total, 'EUR', 'refunded', paid_at + interval '3 minutes', paid_at, paid_at
FROM sample_shop.orders WHERE id LIKE 'g%' AND CAST(substr(id, 2) AS integer) % 29 = 0;
INSERT INTO sample_shop.payments (
    merchant_id, id, subscription_id, customer_id, amount, currency, status, captured_at, period_start, period_end, created_at,
    updated_at
)
SELECT
    merchant_id, 'r' || n, 's' || n, 'c' || n, price, 'EUR', 'captured', at + lasts, at + lasts, at + lasts + lasts, at + lasts,
    at + lasts
FROM sold WHERE is_renewed AND n % 20 <> 0
