-- From which transaction on the new entries of these merchants are. Key: integrity_marks_pkey.
SELECT CAST(CAST(min(m.verified_until) AS text) AS bigint) AS since
FROM loyalty.integrity_marks AS m
WHERE CAST(:merchant_ids AS text[]) IS NULL OR m.merchant_id = ANY(CAST(:merchant_ids AS text[]));
