-- Takes back what a repair changed, by how much it did: whatever has happened to the account since stays. Once: the row is
-- locked, and says when it was undone. Indexes accounts_pkey, integrity_repairs_by_number.
WITH undone AS (
    UPDATE loyalty.integrity_repairs AS r
    SET undone_by = :actor, undone_at = now()
    WHERE r.repair_id = :repair_id AND r.undone_at IS NULL
    RETURNING r.merchant_id, r.account_id, r.before, r.after
)

UPDATE loyalty.accounts AS a
SET
    balance = a.balance + CAST(u.before ->> 'balance' AS bigint) - CAST(u.after ->> 'balance' AS bigint),
    stamp_count = a.stamp_count + CAST(u.before ->> 'stamp_count' AS bigint) - CAST(u.after ->> 'stamp_count' AS bigint),
    held = a.held + CAST(u.before ->> 'held' AS bigint) - CAST(u.after ->> 'held' AS bigint),
    next_seq = a.next_seq + CAST(u.before ->> 'next_seq' AS bigint) - CAST(u.after ->> 'next_seq' AS bigint),
    last_expiry_seq = a.last_expiry_seq
    + CAST(u.before ->> 'last_expiry_seq' AS bigint)
    - CAST(u.after ->> 'last_expiry_seq' AS bigint)
FROM undone AS u
WHERE a.merchant_id = u.merchant_id AND a.account_id = u.account_id;
