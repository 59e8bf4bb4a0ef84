-- The merchants of the sample shop, to name them where one is not found. Reads only.
SELECT m.id
FROM sample_shop.merchants AS m
ORDER BY m.id
LIMIT 30;
