-- Mails that have not left, per merchant. Reads only; notifications_due, notifications_failed.
SELECT m.*
FROM loyalty.metrics_mails_undelivered AS m
WHERE CAST(:merchant_id AS text) IS NULL OR m.merchant_id = :merchant_id
ORDER BY m.merchant_id;
