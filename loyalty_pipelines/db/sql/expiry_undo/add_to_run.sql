-- Counts what was given back into its run, in the same transaction: its night is no measure for other nights then. Not to
-- be repeated on its own; expiry_runs_pkey.
UPDATE loyalty.expiry_runs AS r
SET accounts_undone = r.accounts_undone + :accounts, points_undone = r.points_undone + :points
WHERE r.merchant_id = :merchant_id AND r.run_id = :run_id;
