-- How many inbox rows wait, of all merchants or of those named. Reads only; order_inbox_pkey for named ones.
SELECT count(*) AS waiting
FROM loyalty.order_inbox AS i
WHERE cardinality(CAST(:merchants AS text[])) = 0 OR i.merchant_id = ANY(CAST(:merchants AS text[]));
