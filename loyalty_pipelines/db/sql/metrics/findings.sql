-- Open findings per merchant, class, severity and currency. Reads only; findings_open.
SELECT f.*
FROM loyalty.metrics_findings AS f
WHERE CAST(:merchant_id AS text) IS NULL OR f.merchant_id = :merchant_id
ORDER BY f.merchant_id, f.class, f.severity, f.currency;
