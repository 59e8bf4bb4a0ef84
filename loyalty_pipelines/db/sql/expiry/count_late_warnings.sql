-- How many dates would move because their warning could not be delivered until now, as in renew_page.sql. Reads only;
-- notifications_open_warnings.
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
    );
