-- From which transaction on, and up to which one, the new entries of these merchants are. Key: integrity_marks_pkey.
SELECT
    CAST(CAST(min(m.verified_until) AS text) AS bigint) AS since,
    CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint) AS until
FROM loyalty.integrity_marks AS m
WHERE CAST(:merchant_ids AS text[]) IS NULL OR m.merchant_id = ANY(CAST(:merchant_ids AS text[]));
