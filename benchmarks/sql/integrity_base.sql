-- {merchants} merchants, {accounts} accounts with ten entries each, written round by round as time would: eight or nine
-- orders, a redemption, and for every tenth account an expiry. Everything that the proof looks at is there and right.
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
INSERT INTO loyalty.programs (merchant_id, version, valid_from, points_per_unit, points_expiration_days, point_value_amount,
    created_by)
SELECT m.id, 1, '2000-01-01', 1, 365, 0.01, 'benchmark' FROM shop.merchants AS m;
INSERT INTO loyalty.expiry_terms (merchant_id, points_expiration_days, timezone, is_program_active)
SELECT m.id, 365, 'Europe/Luxembourg', true FROM shop.merchants AS m;
-- Without foreign keys and triggers, which cost most of the time of filling it; constraints stay on.
SET session_replication_role = replica;
INSERT INTO loyalty.accounts (merchant_id, account_id, customer_id, balance, next_seq, last_expiry_seq, last_activity_at,
    expires_at, warned_for)
OVERRIDING SYSTEM VALUE
SELECT 'm' || lpad((1 + mod(hashtext(n::text) & 2147483647, {merchants}))::text, 4, '0'), n, 'c' || n,
    CASE WHEN mod(n, 10) = 0 THEN 0 ELSE 8 * (10 + mod(n, 90)) END, 11, CASE WHEN mod(n, 10) = 0 THEN 10 ELSE 0 END,
    now() - interval '1 day',
    CASE WHEN mod(n, 10) > 0 THEN loyalty.expiry_instant(now() - interval '1 day', 365, 'Europe/Luxembourg') END, NULL
FROM generate_series(1, {accounts}) AS n;
SELECT setval(pg_get_serial_sequence('loyalty.accounts', 'account_id'), {accounts});
{rounds};
INSERT INTO loyalty.order_points (merchant_id, order_id, account_id, target_points, in_force_points, last_reference_seq,
    program_version)
SELECT a.merchant_id, 'order-' || a.account_id || '-' || r, a.account_id, 10 + mod(a.account_id, 90),
    10 + mod(a.account_id, 90), 1, 1
FROM loyalty.accounts AS a CROSS JOIN generate_series(1, 10) AS r
WHERE r < 9 OR (r = 10 AND mod(a.account_id, 10) > 0)
ORDER BY r, hashtext(a.account_id::text);
INSERT INTO loyalty.holds (merchant_id, order_id, account_id, points, status, expires_at, settled_at, last_reference_seq)
SELECT a.merchant_id, 'order-' || a.account_id || '-9', a.account_id, 10 + mod(a.account_id, 90), 'captured', now(), now(), 1
FROM loyalty.accounts AS a ORDER BY hashtext(a.account_id::text);
INSERT INTO loyalty.notifications (merchant_id, dedupe_key, template, customer_id, payload, status, settled_at)
SELECT a.merchant_id, 'expired/' || a.account_id || '/10', 'loyalty_points_expired', a.customer_id,
    jsonb_build_object('points', 7 * (10 + mod(a.account_id, 90))), 'sent', now()
FROM loyalty.accounts AS a WHERE mod(a.account_id, 10) = 0 ORDER BY hashtext(a.account_id::text);
SET session_replication_role = origin;
