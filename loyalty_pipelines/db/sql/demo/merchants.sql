-- The demo's merchants: half in Luxembourg with euros, half in Los Angeles with dollars. Safe to repeat.
INSERT INTO sample_shop.merchants (id, name, timezone, currency, locale)
SELECT
    'shop-' || lpad(CAST(n AS text), 2, '0'),
    'Demo shop ' || n,
    CASE WHEN n % 2 = 1 THEN 'Europe/Luxembourg' ELSE 'America/Los_Angeles' END,
    CASE WHEN n % 2 = 1 THEN 'EUR' ELSE 'USD' END,
    CASE WHEN n % 2 = 1 THEN 'fr' ELSE 'en' END
FROM generate_series(1, CAST(:merchants AS integer)) AS n
ON CONFLICT (id) DO NOTHING;
