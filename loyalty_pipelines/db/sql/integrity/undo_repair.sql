-- Takes back what a repair changed: of balance, stamps and held points by how much it did, so that whatever has happened to
-- the account since stays; of numbers of entries only what nobody has changed since. What the account's constraints forbid
-- by now is left as it is, and said: as much of balance and held points is taken back as may be. Once: the repair and the
-- account are locked, and the row says when it was undone. Indexes accounts_pkey, integrity_repairs_by_number.
WITH repair AS (
    SELECT
        r.merchant_id,
        r.account_id,
        b.balance - f.balance AS balance_change,
        b.stamp_count - f.stamp_count AS stamp_change,
        b.held - f.held AS held_change,
        b.next_seq,
        f.next_seq AS repaired_next_seq,
        b.last_expiry_seq,
        f.last_expiry_seq AS repaired_last_expiry_seq
    FROM loyalty.integrity_repairs AS r
    CROSS JOIN LATERAL jsonb_to_record(r.before) AS b (
        balance bigint, stamp_count bigint, held bigint, next_seq bigint, last_expiry_seq bigint
    )
    CROSS JOIN LATERAL jsonb_to_record(r.after) AS f (
        balance bigint, stamp_count bigint, held bigint, next_seq bigint, last_expiry_seq bigint
    )
    WHERE r.repair_id = :repair_id AND r.undone_at IS NULL
),

decided AS (
    SELECT
        a.merchant_id,
        a.account_id,
        allowed.balance,
        allowed.held,
        stamps.stamp_count,
        numbers.next_seq,
        numbers.last_expiry_seq,
        array_remove(
            ARRAY[
                CASE WHEN allowed.balance <> a.balance + r.balance_change THEN 'balance' END,
                CASE WHEN stamps.stamp_count <> a.stamp_count + r.stamp_change THEN 'stamp_count' END,
                CASE WHEN allowed.held <> a.held + r.held_change THEN 'held' END,
                CASE WHEN numbers.next_seq <> r.next_seq AND r.next_seq <> r.repaired_next_seq THEN 'next_seq' END,
                CASE
                    WHEN numbers.last_expiry_seq <> r.last_expiry_seq AND r.last_expiry_seq <> r.repaired_last_expiry_seq
                        THEN 'last_expiry_seq'
                END
            ],
            NULL
        ) AS columns_left
    FROM repair AS r
    INNER JOIN loyalty.accounts AS a ON a.merchant_id = r.merchant_id AND a.account_id = r.account_id
    CROSS JOIN LATERAL (
        SELECT
            tried.balance,
            tried.held
        FROM (
            VALUES
            (1, a.balance + r.balance_change, a.held + r.held_change),
            (2, a.balance + r.balance_change, a.held),
            (3, a.balance, a.held + r.held_change),
            (4, a.balance, a.held)
        ) AS tried (place, balance, held)
        WHERE
            tried.place = 4
            OR (
                (tried.balance >= 0 OR a.is_debt_allowed)
                AND tried.held >= 0
                AND (tried.held <= tried.balance OR a.is_debt_allowed)
            )
        ORDER BY tried.place
        LIMIT 1
    ) AS allowed
    CROSS JOIN LATERAL (
        SELECT CASE WHEN a.stamp_count + r.stamp_change >= 0 THEN a.stamp_count + r.stamp_change ELSE a.stamp_count END
            AS stamp_count
    ) AS stamps
    CROSS JOIN LATERAL (
        SELECT
            CASE WHEN a.next_seq = r.repaired_next_seq THEN r.next_seq ELSE a.next_seq END AS next_seq,
            CASE WHEN a.last_expiry_seq = r.repaired_last_expiry_seq THEN r.last_expiry_seq ELSE a.last_expiry_seq END
                AS last_expiry_seq
    ) AS numbers
),

changed AS (
    UPDATE loyalty.accounts AS a
    SET
        balance = d.balance,
        stamp_count = d.stamp_count,
        held = d.held,
        next_seq = d.next_seq,
        last_expiry_seq = d.last_expiry_seq
    FROM decided AS d
    WHERE a.merchant_id = d.merchant_id AND a.account_id = d.account_id
)

UPDATE loyalty.integrity_repairs AS r
SET
    undone_by = :actor,
    undone_at = now(),
    columns_left = coalesce((SELECT d.columns_left FROM decided AS d), '{}')
WHERE r.repair_id = :repair_id AND r.undone_at IS NULL
RETURNING r.undone_by, r.undone_at, r.columns_left;
