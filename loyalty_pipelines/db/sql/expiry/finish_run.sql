-- Ends a merchant's run: how many accounts were locked both times, and what will be due a day later. Safe to repeat;
-- expiry_runs_pkey, accounts_expiring.
UPDATE loyalty.expiry_runs AS r
SET
    finished_at = now(),
    accounts_locked = :accounts_locked,
    is_stopped = :is_stopped,
    accounts_forecast = tomorrow.accounts,
    points_forecast = tomorrow.points
FROM (
    SELECT
        count(*) AS accounts,
        coalesce(sum(a.balance - a.held), 0) AS points
    FROM loyalty.expiring_accounts AS a
    WHERE
        CAST(:is_expiring AS boolean)
        AND a.merchant_id = :merchant_id
        AND a.expires_at > CAST(:as_of AS timestamptz)
        AND a.expires_at <= CAST(:as_of AS timestamptz) + interval '1 day'
        AND a.has_free_points
) AS tomorrow
WHERE r.merchant_id = :merchant_id AND r.run_id = :run_id;
