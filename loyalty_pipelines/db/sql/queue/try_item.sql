-- Applies an item that this transaction has locked, and resolves it with that; what it did before is found in the
-- ledger and not done again. Index reconciliation_queue_pkey.
SELECT loyalty.try_queue_item(
    :merchant_id,
    :queue_id,
    :actor,
    :run_id,
    :max_tries,
    :first_wait,
    :longest_wait
) AS result;
