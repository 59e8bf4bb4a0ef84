-- What would expire now, what waits for its warning or for the customer's orders, and what the merchant's own last 30 days
-- were like; while it is stopped, the 30 days before that, or the stop would end by itself. Reads only; accounts_expiring,
-- accounts_pkey, expiry_runs_by_time.
SELECT
    due.accounts AS accounts_due,
    due.points AS points_due,
    due.accounts_waiting,
    everyone.accounts AS accounts_with_points,
    coalesce(nights.nights, 0) AS nights_compared,
    coalesce(nights.accounts, 0) AS accounts_usual
FROM (
    SELECT
        count(*) FILTER (WHERE a.is_due) AS accounts,
        coalesce(sum(a.free_points) FILTER (WHERE a.is_due), 0) AS points,
        count(*) FILTER (WHERE NOT a.is_due) AS accounts_waiting
    FROM (
        SELECT
            one.balance - one.held AS free_points,
            loyalty.may_expire(
                one.is_told, one.has_waiting_orders, CAST(:is_warning_required AS boolean)
            ) AS is_due
        FROM loyalty.expiring_accounts AS one
        WHERE
            one.merchant_id = :merchant_id
            AND one.expires_at <= CAST(:as_of AS timestamptz)
            AND one.has_free_points
        -- Or each of the three would ask anew whether it is due.
        OFFSET 0
    ) AS a
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
        max(r.accounts_expired - r.accounts_undone) FILTER (WHERE NOT r.is_accepted) AS accounts
    FROM loyalty.expiry_runs AS r
    CROSS JOIN (
        SELECT coalesce(min(s.as_of), CAST(:as_of AS timestamptz)) AS until
        FROM loyalty.expiry_runs AS s
        WHERE
            s.merchant_id = :merchant_id
            AND s.is_stopped
            AND s.finished_at IS NOT NULL
            AND s.as_of < CAST(:as_of AS timestamptz)
            AND NOT EXISTS (
                SELECT 1
                FROM loyalty.expiry_runs AS later
                WHERE
                    later.merchant_id = :merchant_id
                    AND later.started_at > s.started_at
                    AND later.as_of >= s.as_of
                    AND later.finished_at IS NOT NULL
                    AND NOT later.is_stopped
            )
    ) AS own
    WHERE
        r.merchant_id = :merchant_id
        AND r.as_of > own.until - interval '30 days'
        AND r.as_of < own.until
        AND r.finished_at IS NOT NULL
        AND NOT r.is_stopped
) AS nights;
