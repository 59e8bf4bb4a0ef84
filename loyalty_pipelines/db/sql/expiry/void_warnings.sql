-- Warnings that have not arrived and that nobody needs any more: they name a date that their account no longer has, the
-- account is off, or nothing expires at the merchant by now (:is_expiring). Open, they would keep points from expiring for
-- ever. Whoever has the date still is told of it anew, if it ever means something again. A mail that a sender is at work on
-- is left for the next night. Repeating it finds none. Index notifications_open_warnings; SKIP LOCKED, as for all that
-- waits for nobody.
WITH outdated AS MATERIALIZED (
    SELECT
        o.notification_id,
        a.account_id,
        -- By the instant, too: that of an account which PostgreSQL refused to change is still of the former time zone.
        coalesce(o.dedupe_key = loyalty.warning_key(a.account_id, a.expires_at, CAST(:timezone AS text)), false)
        OR coalesce(CAST(o.payload ->> 'expires_at' AS timestamptz) = a.expires_at, false) AS is_of_its_date
    FROM loyalty.notifications AS o
    INNER JOIN loyalty.accounts AS a ON a.merchant_id = o.merchant_id AND a.customer_id = o.customer_id
    WHERE
        o.merchant_id = :merchant_id
        AND o.template = 'loyalty_points_expiring'
        AND o.status IN ('pending', 'failed')
        AND (o.leased_until IS NULL OR o.leased_until <= now())
        AND (
            NOT CAST(:is_expiring AS boolean)
            OR NOT a.is_active
            OR o.dedupe_key IS DISTINCT FROM loyalty.warning_key(a.account_id, a.expires_at, CAST(:timezone AS text))
        )
    ORDER BY o.notification_id
    FOR NO KEY UPDATE SKIP LOCKED
),

untold AS (
    UPDATE loyalty.accounts AS a
    SET warned_for = NULL
    FROM outdated
    WHERE outdated.is_of_its_date AND a.merchant_id = :merchant_id AND a.account_id = outdated.account_id
)

UPDATE loyalty.notifications AS n
SET
    status = 'void',
    leased_until = NULL,
    settled_at = now(),
    last_error = CASE
        WHEN outdated.is_of_its_date THEN 'nothing of the account, or of the merchant, expires at the moment'
        ELSE 'the points have another date by now, or are gone'
    END
FROM outdated
WHERE n.merchant_id = :merchant_id AND n.notification_id = outdated.notification_id;
