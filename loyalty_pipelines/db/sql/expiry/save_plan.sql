-- Writes the plan into the merchant's run. Safe to repeat; expiry_runs_pkey.
UPDATE loyalty.expiry_runs AS r
SET
    accounts_with_points = :accounts_with_points,
    accounts_due = :accounts_due,
    points_due = :points_due,
    accounts_waiting = :accounts_waiting,
    accounts_usual = :accounts_usual,
    nights_compared = :nights_compared,
    accounts_limit = :accounts_limit,
    is_accepted = r.is_accepted OR CAST(:is_accepted AS boolean),
    is_stopped = :is_stopped
WHERE r.merchant_id = :merchant_id AND r.run_id = :run_id;
