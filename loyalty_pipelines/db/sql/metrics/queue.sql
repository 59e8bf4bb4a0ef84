-- Open items of the queue, per merchant. Reads only; the partial indexes of open items.
SELECT q.*
FROM loyalty.metrics_queue AS q
WHERE CAST(:merchant_id AS text) IS NULL OR q.merchant_id = :merchant_id
ORDER BY q.merchant_id;
