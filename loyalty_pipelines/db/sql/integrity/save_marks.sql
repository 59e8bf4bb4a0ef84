-- Remembers up to where these merchants are proved. Safe to repeat. Key: integrity_marks_pkey, in its order.
INSERT INTO loyalty.integrity_marks AS m (merchant_id, verified_until)
SELECT
    w.merchant_id,
    CAST(CAST(:verified_until AS text) AS xid8)
FROM unnest(CAST(:merchant_ids AS text[])) AS w (merchant_id)
ORDER BY w.merchant_id COLLATE "C"
ON CONFLICT (merchant_id) DO UPDATE SET
    verified_until = excluded.verified_until,
    verified_at = now(),
    fully_verified_at = CASE WHEN CAST(:is_full AS boolean) THEN now() ELSE m.fully_verified_at END;
