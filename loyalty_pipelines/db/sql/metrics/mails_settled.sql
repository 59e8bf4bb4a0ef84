-- What became of the mails of the last hour, per merchant and status. Reads only; notifications_settled.
SELECT m.*
FROM loyalty.metrics_mails_settled AS m
WHERE CAST(:merchant_id AS text) IS NULL OR m.merchant_id = :merchant_id
ORDER BY m.merchant_id, m.status;
