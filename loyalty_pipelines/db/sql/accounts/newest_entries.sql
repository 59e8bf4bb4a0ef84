-- The newest entries of an account. Reads only; ledger_entries_pkey backwards, as many rows as are shown.
SELECT
    e.seq,
    e.kind,
    e.points,
    e.balance_after,
    e.stamps,
    e.reference_type,
    e.reference_id,
    e.reason,
    e.actor,
    e.occurred_at,
    e.recorded_at
FROM loyalty.ledger_entries AS e
WHERE e.merchant_id = :merchant_id AND e.account_id = :account_id
ORDER BY e.seq DESC
LIMIT :row_limit;
