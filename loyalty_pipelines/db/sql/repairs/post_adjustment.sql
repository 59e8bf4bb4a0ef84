-- Writes the entry and moves the balance of an account that is locked. Once per reference: the unique key
-- ledger_entries_reference_once would refuse a second entry.
SELECT
    e.seq,
    e.balance_before,
    e.balance_after
FROM loyalty.post_entry(
    :merchant_id, CAST(:account_id AS bigint), 'adjusted', CAST(:points AS bigint), 0, 0, 'adjustment', :reference, 1,
    :reason, :actor, :run_id, CAST(:is_debt_allowed AS boolean)
) AS e;
