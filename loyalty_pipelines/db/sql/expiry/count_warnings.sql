-- What the warnings of a run would be: accounts that would be told of their date, their points, and those whose date
-- moves, warnings that could not be delivered included. Reads only; accounts_expiring, notifications_open_warnings.
SELECT
    told.accounts,
    told.points,
    told.accounts_moved + renewed.accounts AS accounts_moved
FROM (
    SELECT
        count(*) AS accounts,
        coalesce(sum(a.balance), 0) AS points,
        count(*) FILTER (WHERE a.expires_at < CAST(:least_expires_at AS timestamptz)) AS accounts_moved
    FROM loyalty.expiring_accounts AS a
    WHERE
        a.merchant_id = :merchant_id
        AND a.expires_at > CAST(:not_before AS timestamptz)
        AND a.expires_at <= CAST(:warn_until AS timestamptz)
        AND a.is_to_be_warned
) AS told
CROSS JOIN (
    SELECT count(*) AS accounts
    FROM loyalty.open_warnings AS n
    INNER JOIN loyalty.accounts AS a ON a.merchant_id = n.merchant_id AND a.customer_id = n.customer_id
    WHERE
        n.merchant_id = :merchant_id
        AND (n.leased_until IS NULL OR n.leased_until <= now())
        AND n.dedupe_key = loyalty.warning_key(a.account_id, a.expires_at, CAST(:timezone AS text))
        AND a.warned_for = a.expires_at
        AND a.expires_at < CAST(:least_expires_at AS timestamptz)
        AND a.balance > 0
        AND a.is_active
        AND NOT EXISTS (
            SELECT 1
            FROM loyalty.notifications AS o
            WHERE
                o.merchant_id = :merchant_id
                AND o.dedupe_key = loyalty.warning_key(
                    a.account_id, CAST(:warn_until AS timestamptz), CAST(:timezone AS text)
                )
        )
) AS renewed;
