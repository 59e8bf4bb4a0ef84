-- What accounts have, by merchant and by when it goes: overdue, in which of the merchant's months up to :months after this
-- one, later, or never (no date, expiry is off, the account is inactive). What checkouts hold and what is owed is counted
-- apart, so that free + held - debt = balance. Reads the accounts once; of few merchants by accounts_pkey.
SELECT
    a.merchant_id,
    a.bucket,
    CASE WHEN a.bucket = 'month' THEN CAST(a.month_at AS date) END AS month_on,
    count(*) AS accounts,
    sum(a.balance) AS balance,
    sum(greatest(a.balance - a.held, 0)) AS free,
    sum(least(a.held, greatest(a.balance, 0))) AS held,
    sum(greatest(-a.balance, 0)) AS debt
FROM (
    SELECT
        own.merchant_id,
        own.balance,
        own.held,
        dated.month_at,
        CASE
            WHEN dated.month_at IS NULL THEN 'never'
            WHEN own.expires_at <= now() THEN 'overdue'
            WHEN dated.month_at > m.month_on + make_interval(months => CAST(:months AS integer)) THEN 'later'
            ELSE 'month'
        END AS bucket
    FROM unnest(
        CAST(:merchant_ids AS text[]), CAST(:timezones AS text[]), CAST(:months_on AS date[]), CAST(:expiring AS boolean[])
    ) AS m (merchant_id, timezone, month_on, is_expiring)
    INNER JOIN loyalty.accounts AS own ON own.merchant_id = m.merchant_id COLLATE "C"
    CROSS JOIN LATERAL (
        SELECT
            CASE
                WHEN m.is_expiring AND own.is_active THEN date_trunc('month', own.expires_at AT TIME ZONE m.timezone)
            END AS month_at
    ) AS dated
) AS a
GROUP BY a.merchant_id, a.bucket, CASE WHEN a.bucket = 'month' THEN CAST(a.month_at AS date) END
ORDER BY a.merchant_id, a.bucket, month_on;
