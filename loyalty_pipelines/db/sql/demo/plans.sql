-- Two yearly plans of each of the demo's first :merchants merchants, of which a customer has one. Yearly, so that a demo
-- that is looked at again after months has no renewals that nobody paid. Safe to repeat.
INSERT INTO sample_shop.plans (merchant_id, id, name, price, currency, billing_interval)
SELECT
    m.id,
    p.id,
    p.name,
    p.price,
    m.currency,
    'year'
FROM generate_series(1, CAST(:merchants AS integer)) AS n
INNER JOIN sample_shop.merchants AS m ON m.id = 'shop-' || lpad(CAST(n AS text), 2, '0')
CROSS JOIN (VALUES ('basic', 'Basic', 60), ('plus', 'Plus', 120)) AS p (id, name, price)
ON CONFLICT (merchant_id, id) DO NOTHING;
