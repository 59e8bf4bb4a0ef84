-- Seals what was proved: accounts without a seal, and those whose history has grown, unless something is wrong with it.
-- Safe to repeat: a seal only grows. Key: account_seals_pkey, in its order.
INSERT INTO loyalty.account_seals AS z (merchant_id, account_id, entries, balance, stamps, digest)
SELECT
    s.merchant_id,
    s.account_id,
    coalesce(s.base_entries, 0) + s.entries,
    coalesce(s.base_balance, 0) + s.points,
    coalesce(s.base_stamps, 0) + s.stamps,
    int8xor(coalesce(s.base_digest, 0), s.digest)
FROM integrity_sums AS s
LEFT JOIN loyalty.account_seals AS known
    ON CAST(:is_full AS boolean) AND known.merchant_id = s.merchant_id AND known.account_id = s.account_id
WHERE
    coalesce(known.entries < coalesce(s.base_entries, 0) + s.entries, true)
    AND NOT EXISTS (
        SELECT 1
        FROM found AS f
        WHERE f.merchant_id = s.merchant_id AND f.object_type = 'account' AND f.object_id = CAST(s.account_id AS text)
            AND f.class IN (
                'account_missing', 'balance_differs', 'entries_missing', 'chain_broken', 'next_seq_behind',
                'history_changed', 'stamps_differ'
            )
    )
ORDER BY s.merchant_id, s.account_id
ON CONFLICT (merchant_id, account_id) DO UPDATE SET
    entries = excluded.entries,
    balance = excluded.balance,
    stamps = excluded.stamps,
    digest = excluded.digest,
    sealed_at = now()
WHERE z.entries < excluded.entries;
