-- A repair that is to be undone, with its account, locked in that order everywhere. Index integrity_repairs_by_number.
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
    r.undone_at
FROM loyalty.integrity_repairs AS r
WHERE r.repair_id = :repair_id
FOR NO KEY UPDATE;
