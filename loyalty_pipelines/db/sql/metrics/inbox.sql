-- Orders that wait, per merchant. Reads only; the inbox, which is short unless something is wrong.
SELECT i.*
FROM loyalty.metrics_inbox AS i
WHERE CAST(:merchant_id AS text) IS NULL OR i.merchant_id = :merchant_id
ORDER BY i.merchant_id;
