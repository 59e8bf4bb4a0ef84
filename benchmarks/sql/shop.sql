-- A shop as most are, with numbers for ids: 1,000,000 paid orders of 100,000 customers of 10 merchants, in random order
-- of customers, one in fifty partly refunded.
CREATE SCHEMA shop;

CREATE TABLE shop.merchants (id bigint PRIMARY KEY, name text, timezone text, currency text);
INSERT INTO shop.merchants SELECT n, 'Merchant ' || n, 'Europe/Luxembourg', 'EUR' FROM generate_series(0, 9) AS n;

CREATE TABLE shop.orders (
    id bigint PRIMARY KEY,
    merchant_id bigint NOT NULL REFERENCES shop.merchants,
    customer_id bigint,
    total numeric(12, 2) NOT NULL,
    currency text NOT NULL,
    status text NOT NULL,
    paid_at timestamptz,
    updated_at timestamptz NOT NULL
);

SELECT setseed(0.42);

INSERT INTO shop.orders
SELECT
    n, mod(c, 10), c, round((1 + random() * 200)::numeric, 2), 'EUR', 'paid',
    now() - random() * interval '300 days', now()
FROM (SELECT n, floor(random() * 100000)::bigint AS c FROM generate_series(1, 1000000) AS n) AS o
ORDER BY n;
CREATE INDEX ON shop.orders (merchant_id, customer_id);

CREATE TABLE shop.refunds (
    id bigint PRIMARY KEY,
    merchant_id bigint NOT NULL,
    order_id bigint NOT NULL REFERENCES shop.orders,
    amount numeric(12, 2) NOT NULL,
    refunded_at timestamptz NOT NULL
);
INSERT INTO shop.refunds SELECT id, merchant_id, id, 0.50, now() FROM shop.orders WHERE mod(id, 50) = 17;
CREATE INDEX ON shop.refunds (order_id);

INSERT INTO loyalty.programs (merchant_id, version, valid_from, points_per_unit, points_expiration_days, created_by)
SELECT n::text, 1, '2000-01-01', 1, 365, 'benchmark' FROM generate_series(0, 9) AS n;

INSERT INTO loyalty.accounts (merchant_id, customer_id)
SELECT DISTINCT merchant_id::text, customer_id::text FROM shop.orders ORDER BY 1, 2;
