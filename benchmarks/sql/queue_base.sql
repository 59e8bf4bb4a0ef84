-- The sample shop at work: 100,000 paid orders of 10,000 customers of 5 merchants, each customer with 1,000 points from
-- before. Nothing waits in the inbox: the queue is measured alone.
INSERT INTO sample_shop.merchants (id, name, timezone, currency)
SELECT 'm' || n, 'Merchant ' || n, 'Europe/Luxembourg', 'EUR' FROM generate_series(0, 4) AS n;
INSERT INTO loyalty.programs
(merchant_id, version, valid_from, points_per_unit, point_value_amount, points_expiration_days, created_by)
SELECT 'm' || n, 1, '2000-01-01', 1, 0.01, 365, 'benchmark' FROM generate_series(0, 4) AS n;
ALTER TABLE sample_shop.orders DISABLE TRIGGER ALL;
INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, points_redeemed, currency, status, paid_at)
SELECT 'm' || mod(n / 10, 5), 'o' || n, 'c' || n / 10, 20, 10, 'EUR', 'paid', now()
FROM generate_series(0, 99999) AS n;
ALTER TABLE sample_shop.orders ENABLE TRIGGER ALL;
INSERT INTO loyalty.accounts (merchant_id, customer_id)
SELECT 'm' || mod(c, 5), 'c' || c FROM generate_series(0, 9999) AS c;
SELECT count(loyalty.post_entry(
    merchant_id, account_id, 'opening', 1000, 0, 0, 'opening', customer_id, 1, NULL, 'benchmark', NULL
)) FROM loyalty.accounts;
