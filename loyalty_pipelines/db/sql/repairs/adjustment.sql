-- The entry of an adjustment that was made already, and whose account it is: the survivor's, after a merge. Reads only;
-- ledger_entries_reference_once.
SELECT
    e.seq,
    e.points,
    e.balance_before,
    e.balance_after,
    a.customer_id,
    loyalty.customer_in_ledger(a.merchant_id, a.customer_id) AS account_customer_id,
    loyalty.customer_in_ledger(:merchant_id, :customer_id) AS wanted_customer_id
FROM loyalty.ledger_entries AS e
INNER JOIN loyalty.accounts AS a ON a.merchant_id = e.merchant_id AND a.account_id = e.account_id
WHERE
    e.merchant_id = :merchant_id
    AND e.reference_type = 'adjustment'
    AND e.reference_id = :reference
    AND e.reference_seq = 1;
