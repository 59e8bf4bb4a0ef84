-- Accounts that were proved once, and of which nothing is left, neither account nor entries: what they had is in their seal.
-- Reads account_seals once.
INSERT INTO found (merchant_id, class, object_type, object_id, points_difference, evidence)
SELECT
    z.merchant_id,
    'account_missing',
    'account',
    CAST(z.account_id AS text),
    -z.balance,
    jsonb_build_object('entries_sealed', z.entries, 'balance_sealed', z.balance, 'sealed_at', z.sealed_at)
FROM loyalty.account_seals AS z
LEFT JOIN loyalty.accounts AS a ON a.merchant_id = z.merchant_id AND a.account_id = z.account_id
LEFT JOIN integrity_sums AS s ON s.merchant_id = z.merchant_id AND s.account_id = z.account_id
WHERE
    (CAST(:merchant_ids AS text[]) IS NULL OR z.merchant_id = ANY(CAST(:merchant_ids AS text[])))
    AND a.account_id IS NULL
    AND s.account_id IS NULL;
