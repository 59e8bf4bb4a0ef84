-- Per merchant and local date, or per customer, too (:is_by_customer): how many will be warned and what will go, if nobody
-- is active until then and the nightly run goes on as it does. Who is past the time for a warning is warned by the next run,
-- and the date moves. Reads only; accounts_expiring.
WITH terms AS MATERIALIZED (
    SELECT
        m.merchant_id,
        zone.timezone,
        loyalty.warning_lead(t.points_expiration_days, t.warning_days) AS lead_days
    FROM unnest(CAST(:merchant_ids AS text[])) AS m (merchant_id)
    CROSS JOIN LATERAL loyalty.merchant_terms(m.merchant_id) AS t
    CROSS JOIN LATERAL (
        SELECT CASE WHEN t.is_timezone_usable THEN t.timezone ELSE 'UTC' END AS timezone
    ) AS zone
    WHERE t.is_program_active AND t.points_expiration_days > 0
),

accounts AS (
    SELECT
        terms.merchant_id,
        CASE WHEN CAST(:is_by_customer AS boolean) THEN a.customer_id END AS customer_id,
        a.balance - a.held AS points,
        a.balance AS points_warned,
        NOT a.is_to_be_warned AS is_warned,
        CAST(
            CASE
                WHEN NOT a.is_to_be_warned THEN greatest(a.expires_at, CAST(:next_run_at AS timestamptz))
                ELSE greatest(
                    a.expires_at,
                    loyalty.local_midnight(CAST(:next_run_at AS timestamptz), terms.lead_days, terms.timezone)
                )
            END AT TIME ZONE terms.timezone AS date
        ) AS goes_on,
        terms.lead_days
    FROM terms
    INNER JOIN loyalty.expiring_accounts AS a
        ON
            a.merchant_id = terms.merchant_id
            AND a.expires_at
            <= CAST(:next_run_at AS timestamptz) + make_interval(days => CAST(:days AS integer) + terms.lead_days)
            AND a.has_free_points
),

days AS (
    SELECT
        accounts.merchant_id,
        accounts.customer_id,
        accounts.goes_on AS day_on,
        0 AS accounts_warned,
        0 AS points_warned,
        count(*) AS accounts_expired,
        sum(accounts.points) AS points_expired
    FROM accounts
    GROUP BY accounts.merchant_id, accounts.customer_id, accounts.goes_on
    UNION ALL
    SELECT
        accounts.merchant_id,
        accounts.customer_id,
        accounts.goes_on - accounts.lead_days,
        count(*),
        sum(accounts.points_warned),
        0,
        0
    FROM accounts
    WHERE NOT accounts.is_warned
    GROUP BY accounts.merchant_id, accounts.customer_id, accounts.goes_on - accounts.lead_days
)

SELECT
    days.merchant_id,
    days.customer_id,
    days.day_on,
    sum(days.accounts_warned) AS accounts_warned,
    sum(days.points_warned) AS points_warned,
    sum(days.accounts_expired) AS accounts_expired,
    sum(days.points_expired) AS points_expired
FROM days
INNER JOIN terms ON terms.merchant_id = days.merchant_id
WHERE days.day_on <= CAST(CAST(:next_run_at AS timestamptz) AT TIME ZONE terms.timezone AS date) + CAST(:days AS integer)
GROUP BY days.merchant_id, days.customer_id, days.day_on
ORDER BY days.day_on, days.merchant_id, days.customer_id;
