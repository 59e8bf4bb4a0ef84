-- Warnings that have not arrived and name a date that their account no longer has: nobody needs them any more, and they
-- would keep its points from expiring for ever. A mail that a sender is at work on is left for the next night. Repeating
-- it finds none. Index notifications_open_warnings; SKIP LOCKED, as for all that waits for nobody.
UPDATE loyalty.notifications AS n
SET
    status = 'void',
    leased_until = NULL,
    settled_at = now(),
    last_error = 'the points have another date by now, or are gone'
FROM (
    SELECT o.notification_id
    FROM loyalty.notifications AS o
    INNER JOIN loyalty.accounts AS a ON a.merchant_id = o.merchant_id AND a.customer_id = o.customer_id
    WHERE
        o.merchant_id = :merchant_id
        AND o.template = 'loyalty_points_expiring'
        AND o.status IN ('pending', 'failed')
        AND (o.leased_until IS NULL OR o.leased_until <= now())
        AND a.is_active
        AND o.dedupe_key IS DISTINCT FROM loyalty.warning_key(a.account_id, a.expires_at, CAST(:timezone AS text))
    ORDER BY o.notification_id
    FOR NO KEY UPDATE OF o SKIP LOCKED
) AS outdated
WHERE n.merchant_id = :merchant_id AND n.notification_id = outdated.notification_id;
