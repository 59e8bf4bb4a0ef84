-- Balances per merchant and their worth. Reads only; all accounts, programs_pkey.
SELECT l.*
FROM loyalty.metrics_liability AS l
WHERE CAST(:merchant_id AS text) IS NULL OR l.merchant_id = :merchant_id
ORDER BY l.merchant_id;
