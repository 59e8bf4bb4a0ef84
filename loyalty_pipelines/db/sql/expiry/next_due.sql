-- The first account after a position that a page of one takes, locked for it: of those to be warned, or of those to
-- expire. If PostgreSQL refuses the page, it is this account. Safe to repeat; accounts_expiring.
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
        WHEN a.has_free_points
            THEN loyalty.may_expire(a.is_told, a.has_waiting_orders, CAST(:is_warning_required AS boolean))
        ELSE a.held = 0
    END
ORDER BY a.expires_at, a.account_id
LIMIT 1
FOR NO KEY UPDATE SKIP LOCKED;
