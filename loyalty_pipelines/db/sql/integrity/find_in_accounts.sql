-- What is wrong with each suspect: its entries are read one by one (ledger_entries_pkey), and compared with the account,
-- its open holds and its seal. Accounts that only look suspicious, such as one whose expiry was undone, are found right.
INSERT INTO found (merchant_id, class, object_type, object_id, points_difference, evidence)
SELECT
    f.merchant_id,
    c.class,
    'account',
    CAST(f.account_id AS text),
    c.points_difference,
    jsonb_strip_nulls(
        jsonb_build_object(
            'customer_id', (f.account).customer_id,
            'balance', (f.account).balance,
            'sum_of_entries', f.base_balance + f.points,
            'balance_after_last_entry', f.last_balance,
            'stamps', (f.account).stamp_count,
            'sum_of_stamps', f.base_stamps + f.sum_of_stamps,
            'held', (f.account).held,
            'open_holds', f.held_points,
            'next_seq', (f.account).next_seq,
            'last_entry', f.last_seq,
            'last_expiry_seq', (f.account).last_expiry_seq,
            'last_expiry', f.expiry_in_force,
            'entries_sealed', f.sealed_entries,
            'sealed_entries_now', f.sealed_entries_now,
            'sealed_at', f.sealed_at,
            'entries_missing', nullif(f.missing + greatest((f.account).next_seq - 1 - f.last_seq, 0), 0),
            'broken_entries', nullif(f.evidence, '[]')
        )
    )
FROM (
    SELECT
        s.merchant_id,
        s.account_id,
        s.base_balance,
        s.base_stamps,
        h.points,
        h.stamps AS sum_of_stamps,
        h.last_seq,
        h.last_balance,
        h.missing,
        h.broken,
        h.jump,
        h.evidence,
        h.expiries,
        s.base_entries,
        a.account,
        loyalty.open_holds(s.merchant_id, s.account_id) AS held_points,
        CASE
            WHEN s.base_entries = 0 OR h.expiries > 0 THEN loyalty.last_expiry_in_force(s.merchant_id, s.account_id)
        END AS expiry_in_force,
        sealed.entries AS sealed_entries,
        sealed.entries_now AS sealed_entries_now,
        sealed.sealed_at,
        sealed.points_more,
        coalesce(sealed.is_unchanged, true) AS is_seal_unbroken
    FROM integrity_suspects AS s
    LEFT JOIN LATERAL (
        SELECT one AS account
        FROM loyalty.accounts AS one
        WHERE one.merchant_id = s.merchant_id AND one.account_id = s.account_id
    ) AS a ON true
    CROSS JOIN LATERAL loyalty.account_history(s.merchant_id, s.account_id, s.base_entries, s.base_balance) AS h
    -- What comes after the seal is not compared with it.
    LEFT JOIN LATERAL loyalty.sealed_part(s.merchant_id, s.account_id) AS sealed ON s.base_entries = 0
) AS f
CROSS JOIN LATERAL (
    VALUES
    -- What its balance was: the points of its entries, and those that were sealed and are gone.
    ('account_missing', (f.account).account_id IS NULL, coalesce(f.points_more, 0) - f.base_balance - f.points),
    ('balance_differs', (f.account).balance <> f.base_balance + f.points, (f.account).balance - f.base_balance - f.points),
    -- Between the entries, or after the last one.
    (
        'entries_missing',
        f.missing > 0 OR (f.account).next_seq - 1 > f.last_seq,
        f.jump + CASE WHEN (f.account).next_seq - 1 > f.last_seq THEN (f.account).balance - f.last_balance ELSE 0 END
    ),
    ('chain_broken', f.missing = 0 AND f.broken > 0, f.jump),
    ('next_seq_behind', (f.account).next_seq - 1 < f.last_seq, 0),
    -- A history that doesn't continue is said to be so; this is one that does, and is another one.
    (
        'history_changed',
        f.missing = 0 AND f.broken = 0 AND (f.account).next_seq - 1 <= f.last_seq AND NOT f.is_seal_unbroken,
        coalesce(f.points_more, 0)
    ),
    ('stamps_differ', (f.account).stamp_count <> f.base_stamps + f.sum_of_stamps, 0),
    ('held_differs', (f.account).held <> f.held_points, f.held_points - (f.account).held),
    ('last_expiry_differs', (f.account).last_expiry_seq <> f.expiry_in_force, 0),
    (
        'debt_not_allowed',
        ((f.account).balance < 0 OR (f.account).held > (f.account).balance OR (f.account).held < 0)
        AND NOT (f.account).is_debt_allowed,
        greatest(greatest((f.account).held, 0) - (f.account).balance, 0)
    )
) AS c (class, is_found, points_difference)
WHERE c.is_found;
