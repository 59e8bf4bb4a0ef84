-- Makes failed and parked mails due now, with all their tries; they wait from now on. One, those of a merchant, or (both
-- NULL) all. Repeating it finds none. A parked warning whose date is over stays: its points have expired, and no mail is to
-- be sent any more. Index notifications_not_delivered.
UPDATE loyalty.notifications AS n
SET
    status = 'pending',
    attempts = 0,
    next_attempt_at = now(),
    -- A warning leaves as little time as before: one that has waited for long is given a later date first.
    waits_since = CASE WHEN n.template = 'loyalty_points_expiring' THEN n.waits_since ELSE now() END,
    settled_at = NULL
WHERE
    n.status IN ('failed', 'parked')
    AND (CAST(:merchant_id AS text) IS NULL OR n.merchant_id = :merchant_id)
    AND (CAST(:notification_id AS bigint) IS NULL OR n.notification_id = :notification_id)
    AND NOT (
        n.status = 'parked'
        AND n.template = 'loyalty_points_expiring'
        AND CAST(n.payload ->> 'expires_at' AS timestamptz) <= now()
    );
