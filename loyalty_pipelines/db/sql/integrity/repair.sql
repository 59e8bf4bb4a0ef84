-- Sets the columns of a locked account to what its ledger says, and keeps what they were. Index accounts_pkey.
WITH repaired AS (
    UPDATE loyalty.accounts AS a
    SET
        balance = CAST(CAST(:after AS jsonb) ->> 'balance' AS bigint),
        stamp_count = CAST(CAST(:after AS jsonb) ->> 'stamp_count' AS bigint),
        held = CAST(CAST(:after AS jsonb) ->> 'held' AS bigint),
        next_seq = CAST(CAST(:after AS jsonb) ->> 'next_seq' AS bigint),
        last_expiry_seq = CAST(CAST(:after AS jsonb) ->> 'last_expiry_seq' AS bigint)
    WHERE a.merchant_id = :merchant_id AND a.account_id = :account_id
    RETURNING a.merchant_id, a.account_id
)

INSERT INTO loyalty.integrity_repairs (merchant_id, account_id, first_seq, last_seq, before, after, reason, applied_by)
SELECT
    r.merchant_id,
    r.account_id,
    :first_seq,
    :last_seq,
    CAST(:before AS jsonb),
    CAST(:after AS jsonb),
    :reason,
    :actor
FROM repaired AS r
RETURNING repair_id;
