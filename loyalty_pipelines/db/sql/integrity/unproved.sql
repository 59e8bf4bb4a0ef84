-- Merchants with accounts that were not proved in full within the last :hours hours, though they have had an account for as
-- long, and merchants whose last proof failed. Skips along accounts_pkey; findings_open.
SELECT
    m.merchant_id,
    k.fully_verified_at,
    f.failure
FROM (
    SELECT a.merchant_id FROM loyalty.account_merchants AS a
    UNION
    SELECT p.merchant_id FROM loyalty.integrity_marks AS p
) AS m
LEFT JOIN loyalty.integrity_marks AS k ON k.merchant_id = m.merchant_id
LEFT JOIN LATERAL (
    SELECT o.evidence ->> 'why' AS failure
    FROM loyalty.findings AS o
    WHERE
        o.merchant_id = m.merchant_id
        AND o.subject = 'integrity'
        AND o.class = 'check_failed'
        AND o.closed_at IS NULL
) AS f ON true
LEFT JOIN LATERAL (
    SELECT a.created_at
    FROM loyalty.accounts AS a
    WHERE a.merchant_id = m.merchant_id
    ORDER BY a.account_id
    LIMIT 1
) AS first_account ON true
WHERE
    f.failure IS NOT NULL
    OR coalesce(k.fully_verified_at, first_account.created_at) < now() - make_interval(hours => CAST(:hours AS integer))
ORDER BY f.failure IS NULL, k.fully_verified_at NULLS FIRST, m.merchant_id;
