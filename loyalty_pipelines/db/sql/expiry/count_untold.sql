-- Who is to be warned still, in a dry run or because others had the account locked: accounts, their points, and whose date
-- would move. Reads only; accounts_expiring.
SELECT
    count(*) AS accounts,
    coalesce(sum(a.balance), 0) AS points,
    count(*) FILTER (WHERE a.expires_at < CAST(:least_expires_at AS timestamptz)) AS accounts_moved
FROM loyalty.expiring_accounts AS a
WHERE
    a.merchant_id = :merchant_id
    AND a.expires_at > CAST(:not_before AS timestamptz)
    AND a.expires_at <= CAST(:warn_until AS timestamptz)
    AND a.is_to_be_warned;
