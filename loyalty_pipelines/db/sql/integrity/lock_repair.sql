-- Locks a repair that is to be undone; its account is locked after it. Index integrity_repairs_by_number.
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
WHERE r.repair_id = :repair_id
FOR NO KEY UPDATE;
