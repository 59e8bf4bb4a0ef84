-- A programme for each merchant of the demo that has none: one point per unit, every fifth shop at half as much again.
INSERT INTO loyalty.programs (
    merchant_id, version, valid_from, points_per_unit, multiplier, points_expiration_days, stamps_per_order,
    stamp_target, point_value_amount, created_by
)
SELECT
    m.id,
    1,
    CAST('2020-01-01 00:00:00+00' AS timestamptz),
    1,
    CASE WHEN row_number() OVER (ORDER BY m.id) % 5 = 0 THEN 1.5 ELSE 1 END,
    180,
    1,
    10,
    0.01,
    'loyalty demo'
FROM sample_shop.merchants AS m
WHERE
    NOT EXISTS (
        SELECT 1
        FROM loyalty.programs AS p
        WHERE p.merchant_id = m.id
    );
