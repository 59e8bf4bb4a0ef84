-- :merchants merchants in four zones, :entries entries of three years on :accounts accounts, in order of time.
CREATE SCHEMA shop;
CREATE TABLE shop.merchants (
    id text COLLATE "C" PRIMARY KEY, name text NOT NULL, timezone text NOT NULL, currency text NOT NULL
);
INSERT INTO shop.merchants
SELECT 'm' || lpad(n::text, 4, '0'), 'Merchant ' || n,
    (ARRAY['Europe/Luxembourg', 'Asia/Tokyo', 'America/New_York', 'UTC'])[1 + mod(n, 4)], 'EUR'
FROM generate_series(1, {merchants}) AS n;
CREATE TABLE shop.orders (
    merchant_id text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, customer_id text, total numeric, currency text,
    status text, paid_at timestamptz, updated_at timestamptz, PRIMARY KEY (merchant_id, id)
);
INSERT INTO loyalty.programs (
    merchant_id, version, valid_from, points_per_unit, point_value_amount, points_expiration_days, created_by
)
SELECT m.id, 1, '2000-01-01', 1, 0.01, 365, 'benchmark' FROM shop.merchants AS m;
INSERT INTO loyalty.accounts (merchant_id, customer_id, last_activity_at, expires_at)
SELECT 'm' || lpad((1 + mod(n, {merchants}))::text, 4, '0'), 'c' || n, now(), now() + mod(n, 365) * interval '1 day'
FROM generate_series(0, {accounts} - 1) AS n;
INSERT INTO loyalty.ledger_entries (
    merchant_id, account_id, seq, kind, points, balance_before, balance_after, reference_type, reference_id, reference_seq,
    actor, occurred_at, recorded_at
)
SELECT 'm' || lpad((1 + mod(n, {merchants}))::text, 4, '0'), 1 + mod(n, {accounts}), 1 + n / {accounts},
    CASE WHEN mod(n / {accounts}, 5) = 4 THEN 'redeemed' ELSE 'earned' END,
    CASE WHEN mod(n / {accounts}, 5) = 4 THEN -30 ELSE 10 END,
    0, CASE WHEN mod(n / {accounts}, 5) = 4 THEN -30 ELSE 10 END, 'order', n::text, 1, 'benchmark', now(),
    now() - ({entries} - n) * (interval '3 years' / {entries})
FROM generate_series(0, {entries} - 1) AS n;
UPDATE loyalty.accounts AS a SET balance = s.points, next_seq = s.entries + 1
FROM (
    SELECT account_id, sum(points) AS points, count(*) AS entries FROM loyalty.ledger_entries GROUP BY account_id
) AS s
WHERE s.account_id = a.account_id
