-- Merchants with accounts that were not proved in full within the last :hours hours, though they have had an account for as
-- long, and merchants whose last proof failed. Skips along accounts_pkey: a row per merchant.
WITH RECURSIVE merchants AS (
    (SELECT a.merchant_id FROM loyalty.accounts AS a ORDER BY a.merchant_id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT a.merchant_id
        FROM loyalty.accounts AS a
        WHERE a.merchant_id > m.merchant_id
        ORDER BY a.merchant_id
        LIMIT 1
    )
    FROM merchants AS m
    WHERE m.merchant_id IS NOT NULL
)

SELECT
    m.merchant_id,
    k.fully_verified_at,
    f.failure
FROM merchants AS m
LEFT JOIN loyalty.integrity_marks AS k ON k.merchant_id = m.merchant_id
LEFT JOIN LATERAL (
    SELECT j.failure
    FROM loyalty.merchant_jobs AS j
    WHERE
        j.merchant_id = m.merchant_id
        AND j.job = 'balance_integrity'
        AND j.failed_at > coalesce(j.succeeded_at, '-infinity')
) AS f ON true
CROSS JOIN LATERAL (
    SELECT a.created_at
    FROM loyalty.accounts AS a
    WHERE a.merchant_id = m.merchant_id
    ORDER BY a.account_id
    LIMIT 1
) AS first_account
WHERE
    m.merchant_id IS NOT NULL
    AND (
        f.failure IS NOT NULL
        OR coalesce(k.fully_verified_at, first_account.created_at) < now() - make_interval(hours => CAST(:hours AS integer))
    )
ORDER BY f.failure IS NULL, k.fully_verified_at NULLS FIRST, m.merchant_id;
