-- A page of what a run took from a merchant's accounts, in key order, with what was given back already. Reads only; walks
-- the merchant's entries once in the order of ledger_entries_pkey.
SELECT
    e.account_id,
    e.seq,
    -e.points AS points,
    EXISTS(
        SELECT 1
        FROM loyalty.ledger_entries AS u
        WHERE
            u.merchant_id = e.merchant_id
            AND u.reference_type = 'expiry'
            AND u.reference_id = e.reference_id
            AND u.reference_seq = 2
    ) AS is_undone
FROM loyalty.ledger_entries AS e
INNER JOIN loyalty.accounts AS a ON a.merchant_id = e.merchant_id AND a.account_id = e.account_id
WHERE
    e.merchant_id = :merchant_id
    AND (e.account_id, e.seq) > (CAST(:after_account_id AS bigint), CAST(:after_seq AS bigint))
    AND e.kind = 'expired'
    AND e.run_id = :run_id
    AND (CAST(:customer_id AS text) IS NULL OR a.customer_id = CAST(:customer_id AS text) COLLATE "C")
ORDER BY e.account_id, e.seq
LIMIT :page_size;
