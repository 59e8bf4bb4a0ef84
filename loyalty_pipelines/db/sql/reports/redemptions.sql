-- Redemptions by merchant and by day or month (:unit) of the merchant's own calendar, from the merchant's since_at. Their
-- worth is that of the programme's version in force when they were redeemed. An account is counted once per period. Reads
-- only: ledger_entries_by_time; and of holds all, which are one row per order that ever reserved or redeemed.
WITH merchants AS MATERIALIZED (
    SELECT
        m.merchant_id COLLATE "C" AS merchant_id,
        m.timezone,
        (
            date_trunc(CAST(:unit AS text), now() AT TIME ZONE m.timezone)
            - CAST('1 ' || CAST(:unit AS text) AS interval) * CAST(:periods AS integer)
        ) AT TIME ZONE m.timezone AS since_at
    FROM unnest(CAST(:merchant_ids AS text[]), CAST(:timezones AS text[])) AS m (merchant_id, timezone)
),

entries AS NOT MATERIALIZED (
    SELECT
        e.merchant_id,
        e.account_id,
        e.kind,
        e.points,
        e.recorded_at,
        -- As in movements.sql.
        width_bucket(e.recorded_at, CAST(:boundaries AS timestamptz[])) AS stretch
    FROM loyalty.ledger_entries AS e
    WHERE
        e.recorded_at >= (CAST(:boundaries AS timestamptz[]))[1]
        AND e.merchant_id = ANY(CAST(:merchant_ids AS text[]))
        AND e.kind IN ('redeemed', 'restored', 'earned', 're-earned', 'bonus')
),

sums AS MATERIALIZED (
    SELECT
        e.merchant_id,
        e.stretch,
        NULL AS account_id,
        0 AS redemptions,
        0 AS spent,
        0 AS amount,
        coalesce(sum(e.points) FILTER (WHERE e.kind = 'restored'), 0) AS restored,
        coalesce(sum(e.points) FILTER (WHERE e.kind <> 'restored'), 0) AS earned
    FROM entries AS e
    WHERE e.kind <> 'redeemed'
    GROUP BY e.merchant_id, e.stretch
    UNION ALL
    SELECT
        e.merchant_id,
        e.stretch,
        e.account_id,
        count(*),
        sum(-e.points),
        CASE WHEN count(p.point_value_amount) = count(*) THEN sum(-e.points * p.point_value_amount) END,
        0,
        0
    FROM entries AS e
    LEFT JOIN loyalty.program_periods AS p
        ON
            p.merchant_id = e.merchant_id
            AND e.recorded_at >= p.valid_from
            AND (e.recorded_at < p.valid_until OR p.valid_until IS NULL)
    WHERE e.kind = 'redeemed'
    GROUP BY e.merchant_id, e.stretch, e.account_id
),

spent AS (
    SELECT
        sums.merchant_id,
        own.period_at,
        sum(sums.redemptions) AS redemptions,
        count(DISTINCT sums.account_id) AS customers,
        sum(sums.spent) AS spent,
        -- Unknown where a part of it was redeemed without a programme.
        CASE WHEN count(sums.amount) = count(*) AND sum(sums.redemptions) > 0 THEN sum(sums.amount) END AS amount,
        sum(sums.restored) AS restored,
        sum(sums.earned) AS earned
    FROM sums
    INNER JOIN merchants AS m ON m.merchant_id = sums.merchant_id
    CROSS JOIN LATERAL (SELECT (CAST(:boundaries AS timestamptz[]))[sums.stretch] AS began_at) AS stretch
    CROSS JOIN LATERAL (
        SELECT date_trunc(CAST(:unit AS text), stretch.began_at AT TIME ZONE m.timezone) AS period_at
    ) AS own
    WHERE stretch.began_at >= m.since_at
    GROUP BY sums.merchant_id, own.period_at
),

released AS (
    SELECT
        h.merchant_id,
        own.period_at,
        count(*) FILTER (WHERE h.settled_at < h.expires_at) AS holds_released,
        count(*) FILTER (WHERE h.settled_at >= h.expires_at) AS holds_expired
    FROM merchants AS m
    INNER JOIN loyalty.holds AS h ON h.merchant_id = m.merchant_id AND h.settled_at >= m.since_at
    CROSS JOIN LATERAL (
        SELECT date_trunc(CAST(:unit AS text), h.settled_at AT TIME ZONE m.timezone) AS period_at
    ) AS own
    -- One that was never open is a note that an order owes points if it is paid again.
    WHERE h.status = 'released' AND h.reserved_at < h.expires_at
    GROUP BY h.merchant_id, own.period_at
)

SELECT
    coalesce(spent.merchant_id, released.merchant_id) AS merchant_id,
    CAST(coalesce(spent.period_at, released.period_at) AS date) AS period_on,
    coalesce(spent.redemptions, 0) AS redemptions,
    coalesce(spent.customers, 0) AS customers,
    coalesce(spent.spent, 0) AS spent_points,
    spent.amount,
    coalesce(spent.restored, 0) AS restored_points,
    coalesce(spent.earned, 0) AS earned_points,
    coalesce(released.holds_released, 0) AS holds_released,
    coalesce(released.holds_expired, 0) AS holds_expired
FROM spent
FULL JOIN released ON released.merchant_id = spent.merchant_id AND released.period_at = spent.period_at
ORDER BY merchant_id, period_on;
