-- The planner knows nothing of a table that was just filled.
ANALYZE integrity_sums (merchant_id, account_id);
