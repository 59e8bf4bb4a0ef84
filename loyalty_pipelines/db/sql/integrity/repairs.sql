-- The newest repairs. Few rows; index integrity_repairs_by_number.
SELECT
    r.merchant_id,
    r.repair_id,
    r.account_id,
    r.before,
    r.after,
    r.reason,
    r.applied_by,
    r.applied_at,
    r.undone_by,
    r.undone_at,
    r.columns_left
FROM loyalty.integrity_repairs AS r
WHERE CAST(:merchant_id AS text) IS NULL OR r.merchant_id = CAST(:merchant_id AS text)
ORDER BY r.repair_id DESC
LIMIT CAST(:row_limit AS bigint);
