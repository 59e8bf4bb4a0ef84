-- Ids and names of the shop's merchants, to suggest one that looks like a mistyped id. Reads only; scans the shop's
-- merchants, once per mistake.
SELECT
    m.merchant_id,
    m.name
FROM loyalty_source.merchants AS m
ORDER BY m.merchant_id
LIMIT 20000;
