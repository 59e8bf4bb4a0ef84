-- How a merchant is called and which language it speaks. Reads only; the shop's key of its merchants.
SELECT
    m.name,
    m.locale
FROM loyalty_source.merchants AS m
WHERE m.merchant_id = :merchant_id;
