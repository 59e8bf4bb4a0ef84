-- The first account after a position that a page of one would take, and that PostgreSQL therefore refused: of those to be
-- warned, or of those to expire. Reads only; accounts_expiring.
SELECT
    a.expires_at,
    a.account_id,
    a.customer_id
FROM loyalty.expiring_accounts AS a
WHERE
    a.merchant_id = :merchant_id
    AND a.expires_at <= CAST(:until AS timestamptz)
    AND (a.expires_at, a.account_id) > (CAST(:after_expires_at AS timestamptz), CAST(:after_account_id AS bigint))
    AND CASE
        WHEN CAST(:is_warning AS boolean) THEN a.is_to_be_warned
        WHEN a.has_free_points THEN a.is_told OR NOT CAST(:is_warning_required AS boolean)
        ELSE a.held = 0
    END
ORDER BY a.expires_at, a.account_id
LIMIT 1;
