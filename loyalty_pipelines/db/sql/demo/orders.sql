-- :orders orders after those that exist, of a realistic shape: the first shop has half of them, one in twenty is of a
-- guest, one in eight is not paid yet, one in forty failed; amounts are skewed, with many small ones. Numbers are
-- derived from the order's number, so that every machine gets the same shop.
INSERT INTO sample_shop.orders (
    merchant_id, id, customer_id, total, currency, status, paid_at, created_at, updated_at
)
SELECT
    m.id,
    'D' || lpad(CAST(o.n AS text), 8, '0'),
    CASE WHEN o.dice_customer % 20 <> 0 THEN 'customer-' || o.dice_customer % (2 + :orders / 12) END,
    round(CAST(2 + 180 * power(o.dice_amount / 10007.0, 4) + (o.dice_amount % 100) / 100.0 AS numeric), 2),
    m.currency,
    o.status,
    CASE WHEN o.status = 'paid' THEN o.placed_at + interval '2 minutes' END,
    o.placed_at,
    o.placed_at
FROM (
    SELECT
        n,
        (n * 7919) % 10007 AS dice_amount,
        (n * 104729) % 1299709 AS dice_customer,
        -- Remainders of different primes, so that none of the choices follows another.
        CASE
            WHEN (n * 48271) % 65537 % 2 = 0 THEN 1
            ELSE 1 + (n * 69621) % 64879 % CAST(:merchants AS integer)
        END AS merchant_number,
        CASE
            WHEN (n * 40692) % 65521 % 40 = 7 THEN 'failed'
            WHEN (n * 40692) % 65521 % 8 = 3 THEN 'pending'
            ELSE 'paid'
        END AS status,
        now() - make_interval(mins => CAST((n * 611953) % 260000 AS integer)) AS placed_at
    FROM generate_series(CAST(:first AS bigint), CAST(:first AS bigint) + CAST(:orders AS bigint) - 1) AS n
) AS o
INNER JOIN sample_shop.merchants AS m ON m.id = 'shop-' || lpad(CAST(o.merchant_number AS text), 2, '0');
