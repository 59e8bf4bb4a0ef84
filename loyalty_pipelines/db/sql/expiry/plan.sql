-- What would expire now, what waits for its warning, and what the merchant's own last 30 days were like. Reads only;
-- accounts_expiring, accounts_pkey, expiry_runs_by_time.
SELECT
    due.accounts AS accounts_due,
    due.points AS points_due,
    due.accounts_waiting,
    everyone.accounts AS accounts_with_points,
    coalesce(nights.nights, 0) AS nights_compared,
    coalesce(nights.accounts, 0) AS accounts_usual
FROM (
    SELECT
        count(*) FILTER (WHERE a.is_told OR NOT CAST(:is_warning_required AS boolean)) AS accounts,
        coalesce(sum(a.balance - a.held) FILTER (WHERE a.is_told OR NOT CAST(:is_warning_required AS boolean)), 0) AS points,
        count(*) FILTER (WHERE NOT a.is_told AND CAST(:is_warning_required AS boolean)) AS accounts_waiting
    FROM loyalty.expiring_accounts AS a
    WHERE
        a.merchant_id = :merchant_id
        AND a.expires_at <= CAST(:as_of AS timestamptz)
        AND a.has_free_points
) AS due
CROSS JOIN (
    SELECT count(*) AS accounts
    FROM loyalty.accounts AS a
    WHERE a.merchant_id = :merchant_id AND a.balance > 0 AND a.is_active
) AS everyone
CROSS JOIN (
    SELECT
        -- Several runs of a day are one night.
        count(DISTINCT CAST(r.as_of AT TIME ZONE 'UTC' AS date)) AS nights,
        max(r.accounts_expired - r.accounts_undone) AS accounts
    FROM loyalty.expiry_runs AS r
    WHERE
        r.merchant_id = :merchant_id
        AND r.as_of > CAST(:as_of AS timestamptz) - interval '30 days'
        AND r.as_of < CAST(:as_of AS timestamptz)
        AND r.finished_at IS NOT NULL
        AND NOT r.is_stopped
) AS nights;
