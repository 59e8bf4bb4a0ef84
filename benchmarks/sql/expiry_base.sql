-- :merchants merchants with :accounts accounts each, all with points, and a ledger that shows where they come from.
CREATE SCHEMA shop;
CREATE TABLE shop.merchants (
    id text COLLATE "C" PRIMARY KEY, name text NOT NULL, timezone text NOT NULL, currency text NOT NULL
);
INSERT INTO shop.merchants
SELECT 'm' || lpad(n::text, 4, '0'), 'Merchant ' || n, 'Europe/Luxembourg', 'EUR' FROM generate_series(1, {merchants}) AS n;
CREATE TABLE shop.orders (
    merchant_id text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, customer_id text, total numeric, currency text,
    status text, paid_at timestamptz, updated_at timestamptz, PRIMARY KEY (merchant_id, id)
);
INSERT INTO loyalty.programs (merchant_id, version, valid_from, points_per_unit, points_expiration_days, created_by)
SELECT m.id, 1, '2000-01-01', 1, 365, 'benchmark' FROM shop.merchants AS m;
INSERT INTO loyalty.expiry_terms (merchant_id, points_expiration_days, timezone, is_program_active)
SELECT m.id, 365, 'Europe/Luxembourg', true FROM shop.merchants AS m;
-- In an order of their own, as customers come: not that of their merchants.
INSERT INTO loyalty.accounts (merchant_id, customer_id, balance, next_seq, last_activity_at)
SELECT m.id, 'c' || n, 100 + mod(n, 900), 2, now() - interval '366 days'
FROM shop.merchants AS m CROSS JOIN generate_series(1, {accounts}) AS n
ORDER BY hashtext(m.id || n);
INSERT INTO loyalty.ledger_entries (
    merchant_id, account_id, seq, kind, points, balance_before, balance_after, reference_type, reference_id, reference_seq,
    actor, occurred_at
)
SELECT a.merchant_id, a.account_id, 1, 'opening', a.balance, 0, a.balance, 'opening', a.customer_id, 1, 'benchmark',
    a.last_activity_at
FROM loyalty.accounts AS a
