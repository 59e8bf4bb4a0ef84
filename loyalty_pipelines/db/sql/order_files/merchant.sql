-- The sample shop's merchant. Reads only; its primary key.
SELECT
    m.currency,
    m.timezone
FROM sample_shop.merchants AS m
WHERE m.id = :merchant_id;
