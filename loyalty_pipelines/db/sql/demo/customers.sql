-- The customers that the demo's orders name, with addresses of the domain that is reserved for examples. One in fifty has
-- none. Safe to repeat.
INSERT INTO sample_shop.customers (merchant_id, id, email, name, locale)
SELECT
    o.merchant_id,
    o.customer_id,
    CASE WHEN number.n % 50 <> 0 THEN o.customer_id || '@example.com' END,
    'Customer ' || number.n,
    (ARRAY['en', 'fr', 'de', 'lb'])[1 + number.n % 4]
FROM (
    SELECT DISTINCT
        merchant_id,
        customer_id
    FROM sample_shop.orders
    WHERE customer_id LIKE 'customer-%'
) AS o
CROSS JOIN LATERAL (
    SELECT CAST(split_part(o.customer_id, '-', 2) AS integer) AS n
) AS number
ON CONFLICT (merchant_id, id) DO NOTHING;
