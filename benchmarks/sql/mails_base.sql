-- :mails customers of 20 merchants, each with a warning in the outbox, in four languages.
INSERT INTO sample_shop.merchants (id, name, timezone, currency)
SELECT
    'm' || n,
    'Müller & Söhne ' || n,
    'Europe/Luxembourg',
    'EUR'
FROM generate_series(0, 19) AS n;

INSERT INTO loyalty.programs (merchant_id, version, valid_from, points_per_unit, points_expiration_days, created_by)
SELECT
    m.id,
    1,
    '2000-01-01',
    1,
    365,
    'benchmark'
FROM sample_shop.merchants AS m;

INSERT INTO sample_shop.customers (merchant_id, id, email, name, locale)
SELECT
    'm' || n % 20,
    'c' || n,
    'customer-' || n || '@example.com',
    'Zoë ' || n,
    (ARRAY['en', 'fr', 'de', 'lb'])[n % 4 + 1]
FROM generate_series(1, :mails) AS n;

INSERT INTO loyalty.accounts (merchant_id, customer_id, expires_at, warned_for)
SELECT
    c.merchant_id,
    c.id,
    date_trunc('day', now()) + interval '14 days',
    date_trunc('day', now()) + interval '14 days'
FROM sample_shop.customers AS c;

INSERT INTO loyalty.notifications (merchant_id, dedupe_key, template, customer_id, payload)
SELECT
    a.merchant_id,
    loyalty.warning_key(a.account_id, a.expires_at, 'Europe/Luxembourg'),
    'loyalty_points_expiring',
    a.customer_id,
    jsonb_build_object('points', 100 + a.account_id, 'expires_at', a.expires_at)
FROM loyalty.accounts AS a;
