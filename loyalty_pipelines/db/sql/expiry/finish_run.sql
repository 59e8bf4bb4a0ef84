-- Ends a merchant's run: how many accounts were locked both times, and what will be due a day later. A run that was
-- stopped is none where another one beside it, of the same night, has let everything through. Safe to repeat;
-- expiry_runs_pkey, accounts_expiring.
UPDATE loyalty.expiry_runs AS r
SET
    finished_at = now(),
    accounts_locked = :accounts_locked,
    is_stopped = CAST(:is_stopped AS boolean) AND left_over.accounts > 0,
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
CROSS JOIN (
    SELECT count(*) AS accounts
    FROM loyalty.expiring_accounts AS a
    WHERE
        CAST(:is_stopped AS boolean)
        AND a.merchant_id = :merchant_id
        AND a.expires_at <= CAST(:as_of AS timestamptz)
        AND a.has_free_points
        AND (a.is_told OR NOT CAST(:is_warning_required AS boolean))
        AND NOT a.has_waiting_orders
) AS left_over
WHERE r.merchant_id = :merchant_id AND r.run_id = :run_id;
