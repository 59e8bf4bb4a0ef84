-- The merchants of a run and what it took from each, with the terms by which the points get a date again. Reads only;
-- expiry_runs_by_run.
SELECT
    r.merchant_id,
    r.accounts_expired,
    r.points_expired,
    zone.timezone,
    t.is_program_active,
    CASE
        WHEN t.is_program_active
            THEN loyalty.local_midnight(
                now(), loyalty.warning_lead(t.points_expiration_days, t.warning_days), zone.timezone
            )
        -- Off for now: a date that has no meaning until it is on again, when all dates are computed anew.
        ELSE loyalty.local_midnight(now(), 1, zone.timezone)
    END AS least_expires_at
FROM loyalty.expiry_runs AS r
CROSS JOIN LATERAL loyalty.merchant_terms(r.merchant_id) AS t
CROSS JOIN LATERAL (
    SELECT CASE WHEN t.is_timezone_usable THEN t.timezone ELSE 'UTC' END AS timezone
) AS zone
WHERE r.run_id = :run_id
ORDER BY r.merchant_id;
