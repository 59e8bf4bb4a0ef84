-- What a run has to do for each of these merchants, all of them in one statement: a night where nothing is due costs one
-- look into an index per merchant. Merchants without a programme are left out. Reads only; accounts_expiring,
-- notifications_open_warnings, expiry_runs_by_time, programs_pkey.
SELECT
    m.merchant_id,
    t.is_program_active,
    t.points_expiration_days,
    t.is_timezone_usable,
    zone.timezone,
    lead.days AS lead_days,
    lead.warn_until,
    known.timezone AS known_timezone,
    known.is_program_active AS was_program_active,
    coalesce(
        coalesce(known.points_expiration_days, 0) = coalesce(t.points_expiration_days, 0)
        AND known.timezone = zone.timezone
        AND known.is_program_active = t.is_program_active
        AND known.is_complete
        -- A version that came and was taken back since has left dates that are not of these terms.
        AND NOT coalesce(
            (
                SELECT true
                FROM loyalty.programs AS p
                WHERE
                    p.merchant_id = m.merchant_id
                    AND p.valid_from <= now()
                    AND greatest(p.valid_from, p.created_at) > known.recorded_at
                LIMIT 1
            ),
            false
        ),
        false
    ) AS is_scheduled,
    lead.days IS NOT NULL AND coalesce(
        (
            SELECT true
            FROM loyalty.expiring_accounts AS a
            WHERE
                a.merchant_id = m.merchant_id
                AND a.expires_at <= lead.warn_until
                AND (a.is_to_be_warned OR a.expires_at <= CAST(:as_of AS timestamptz))
            LIMIT 1
        ),
        false
    ) AS is_something_due,
    coalesce(
        (
            SELECT true
            FROM loyalty.open_warnings AS w
            WHERE w.merchant_id = m.merchant_id
            LIMIT 1
        ),
        false
    ) AS has_open_warnings,
    -- As in begin_run.sql: it is to be brought to its end, also where nothing is left to do.
    coalesce(
        (
            SELECT true
            FROM loyalty.expiry_runs AS r
            WHERE
                r.merchant_id = m.merchant_id
                AND r.started_at > now() - interval '20 hours'
                AND r.finished_at IS NULL
            LIMIT 1
        ),
        false
    ) AS has_unfinished_run
FROM unnest(CAST(:merchant_ids AS text[])) AS m (merchant_id)
CROSS JOIN LATERAL loyalty.merchant_terms(m.merchant_id) AS t
CROSS JOIN LATERAL (
    SELECT CASE WHEN t.is_timezone_usable THEN t.timezone ELSE 'UTC' END AS timezone
) AS zone
CROSS JOIN LATERAL (
    SELECT loyalty.warning_lead(t.points_expiration_days, t.warning_days) AS days
) AS ahead
CROSS JOIN LATERAL (
    SELECT
        ahead.days,
        loyalty.local_midnight(CAST(:as_of AS timestamptz), ahead.days, zone.timezone) AS warn_until
) AS lead
LEFT JOIN loyalty.expiry_terms AS known ON known.merchant_id = m.merchant_id COLLATE "C"
WHERE t.program_version IS NOT NULL
ORDER BY m.merchant_id;
