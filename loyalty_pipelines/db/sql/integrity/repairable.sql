-- Accounts with an open finding of a class that an intact ledger settles and that nobody has accepted, and what their
-- columns should be. Not intact: an entry is missing, doesn't add up, doesn't continue the one before, or is another one
-- than was sealed. Where all entries before the first that doesn't continue are sealed, it was written on a balance that
-- had drifted, or changed before anybody proved it: a person has to say which. A person has said so once of one inside a
-- repair, also if that was undone since: only because of it were these entries sealed, and they are still the same.
-- :account_id NULL: all of them. Indexes findings_open, accounts_pkey, ledger_entries_pkey, integrity_repairs_by_account.
SELECT
    a.merchant_id,
    a.account_id,
    a.customer_id,
    h.missing = 0
    AND h.unsound = 0
    AND a.next_seq - 1 <= h.last_seq
    AND sealed.is_unchanged
    AND (
        h.broken = 0
        OR h.first_broken_seq > sealed.entries
        OR EXISTS (
            SELECT 1
            FROM loyalty.integrity_repairs AS r
            WHERE
                r.merchant_id = a.merchant_id
                AND r.account_id = a.account_id
                AND h.first_broken_seq BETWEEN r.first_seq AND r.last_seq + 1
        )
    ) AS is_intact,
    h.broken > 0 AS is_trust_needed,
    CASE WHEN a.balance <> h.points THEN coalesce(h.first_broken_seq, h.last_seq + 1) END AS first_seq,
    h.last_seq,
    jsonb_build_object(
        'balance', a.balance,
        'stamp_count', a.stamp_count,
        'held', a.held,
        'next_seq', a.next_seq,
        'last_expiry_seq', a.last_expiry_seq
    ) AS before,
    jsonb_build_object(
        'balance', h.points,
        'stamp_count', h.stamps,
        'held', loyalty.open_holds(a.merchant_id, a.account_id),
        'next_seq', h.last_seq + 1,
        'last_expiry_seq', loyalty.last_expiry_in_force(a.merchant_id, a.account_id)
    ) AS after
FROM (
    SELECT
        f.merchant_id,
        CAST(f.object_id AS bigint) AS account_id
    FROM loyalty.findings AS f
    WHERE
        f.closed_at IS NULL
        AND f.accepted_at IS NULL
        AND f.subject = 'integrity'
        AND f.object_type = 'account'
        AND f.class = ANY(CAST(:classes AS text[]))
        AND (CAST(:merchant_id AS text) IS NULL OR f.merchant_id = CAST(:merchant_id AS text))
        AND (CAST(:account_id AS bigint) IS NULL OR f.object_id = CAST(CAST(:account_id AS bigint) AS text))
    GROUP BY f.merchant_id, f.object_id
) AS wrong
INNER JOIN loyalty.accounts AS a ON a.merchant_id = wrong.merchant_id AND a.account_id = wrong.account_id
CROSS JOIN LATERAL loyalty.account_history(a.merchant_id, a.account_id, 0, 0) AS h
CROSS JOIN LATERAL loyalty.sealed_part(a.merchant_id, a.account_id) AS sealed
ORDER BY a.merchant_id, a.account_id;
