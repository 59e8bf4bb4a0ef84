-- Points by merchant, month and kind; what was recorded before the merchant's since_at has no month. A month is the
-- merchant's own, by recorded_at. First by stretches in which no month of any merchant begins (boundaries.sql), then by
-- month: 1.2 to 1.5 times the bare sum, where looking each entry's zone up takes 5 times. Reads the ledger once; of few
-- merchants by ledger_entries_pkey.
WITH sums AS MATERIALIZED (
    SELECT
        e.merchant_id,
        e.kind,
        width_bucket(e.recorded_at, CAST(:boundaries AS timestamptz[])) AS stretch,
        sum(e.points) AS points,
        count(*) AS entries
    FROM loyalty.ledger_entries AS e
    WHERE e.merchant_id = ANY(CAST(:merchant_ids AS text[]))
    GROUP BY e.merchant_id, e.kind, stretch
)

SELECT
    sums.merchant_id,
    CAST(own.month_at AS date) AS month_on,
    sums.kind,
    sum(sums.points) AS points,
    sum(sums.entries) AS entries
FROM sums
INNER JOIN unnest(CAST(:merchant_ids AS text[]), CAST(:timezones AS text[]), CAST(:since AS timestamptz[]))
    AS m (merchant_id, timezone, since_at)
    ON m.merchant_id COLLATE "C" = sums.merchant_id
CROSS JOIN LATERAL (SELECT (CAST(:boundaries AS timestamptz[]))[sums.stretch] AS began_at) AS stretch
CROSS JOIN LATERAL (
    SELECT
        CASE
            WHEN stretch.began_at >= m.since_at THEN date_trunc('month', stretch.began_at AT TIME ZONE m.timezone)
        END AS month_at
) AS own
GROUP BY sums.merchant_id, own.month_at, sums.kind
ORDER BY sums.merchant_id, own.month_at NULLS FIRST, sums.kind;
