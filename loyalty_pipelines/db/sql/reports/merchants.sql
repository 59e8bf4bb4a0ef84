-- What reports need to know of these merchants. One that the shop no longer lists keeps the time zone that the last expiry
-- run has recorded, so that its months stay as they were; its currency is not known any more. since_at is where the first
-- of :months months before this one begins. Reads only; programs_pkey, expiry_terms_pkey.
SELECT
    wanted.merchant_id,
    nullif(t.currency, '') AS currency,
    t.point_value_amount,
    coalesce(t.is_program_active AND t.points_expiration_days > 0, false) AS is_expiring,
    zone.timezone,
    CAST(month.began_at AS date) AS month_on,
    month.since_at AT TIME ZONE zone.timezone AS since_at
FROM unnest(CAST(:merchant_ids AS text[])) AS wanted (merchant_id)
CROSS JOIN LATERAL loyalty.merchant_terms(wanted.merchant_id) AS t
LEFT JOIN loyalty.expiry_terms AS known ON known.merchant_id = wanted.merchant_id COLLATE "C"
CROSS JOIN LATERAL (
    SELECT
        CASE
            WHEN t.is_timezone_usable THEN t.timezone
            WHEN t.timezone IS NULL THEN coalesce(known.timezone, 'UTC')
            ELSE 'UTC'
        END AS timezone
) AS zone
CROSS JOIN LATERAL (
    SELECT
        date_trunc('month', now() AT TIME ZONE zone.timezone) AS began_at,
        date_trunc('month', now() AT TIME ZONE zone.timezone) - make_interval(months => CAST(:months AS integer)) AS since_at
) AS month
ORDER BY wanted.merchant_id COLLATE "C";
