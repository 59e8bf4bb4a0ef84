-- The shop's merchants with their currency and programme. Reads only; programs_pkey.
SELECT m.*
FROM loyalty.metrics_merchants AS m
WHERE CAST(:merchant_id AS text) IS NULL OR m.merchant_id = :merchant_id
ORDER BY m.merchant_id;
