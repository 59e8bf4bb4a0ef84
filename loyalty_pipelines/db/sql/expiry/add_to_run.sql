-- Counts a page into its run, in the page's own transaction: the sums are those of what was committed. Not to be repeated
-- on its own; expiry_runs_pkey.
UPDATE loyalty.expiry_runs AS r
SET
    accounts_rescheduled = r.accounts_rescheduled + :accounts_rescheduled,
    accounts_warned = r.accounts_warned + :accounts_warned,
    points_warned = r.points_warned + :points_warned,
    accounts_moved = r.accounts_moved + :accounts_moved,
    accounts_expired = r.accounts_expired + :accounts_expired,
    points_expired = r.points_expired + :points_expired
WHERE r.merchant_id = :merchant_id AND r.run_id = :run_id;
