-- The entries of an account, oldest first, up to the last one that was recorded by an instant (NULL: all). Reads only;
-- ledger_entries_pkey, backwards for the last one.
SELECT
    e.seq,
    e.kind,
    e.points,
    e.balance_before,
    e.balance_after,
    e.reference_type,
    e.reference_id,
    e.reason,
    e.actor,
    e.run_id,
    e.occurred_at,
    e.recorded_at
FROM loyalty.ledger_entries AS e
WHERE
    e.merchant_id = :merchant_id
    AND e.account_id = :account_id
    AND (
        CAST(:at AS timestamptz) IS NULL
        OR e.seq <= (
            SELECT newest.seq
            FROM loyalty.ledger_entries AS newest
            WHERE
                newest.merchant_id = :merchant_id
                AND newest.account_id = :account_id
                AND newest.recorded_at <= CAST(:at AS timestamptz)
            ORDER BY newest.seq DESC
            LIMIT 1
        )
    )
ORDER BY e.seq;
