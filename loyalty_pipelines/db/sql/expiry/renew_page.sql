-- Warnings that nobody could deliver until now: expires_at moves so that the lead is whole again, and the mail names the
-- new date. A mail that a sender is at work on is left for the next night. Repeating it finds the dates moved.
-- Index notifications_open_warnings; SKIP LOCKED, as for all that waits for nobody.
WITH page AS MATERIALIZED (
    SELECT
        n.notification_id,
        a.account_id,
        a.customer_id,
        a.balance
    FROM loyalty.open_warnings AS n
    INNER JOIN loyalty.accounts AS a ON a.merchant_id = n.merchant_id AND a.customer_id = n.customer_id
    WHERE
        n.merchant_id = :merchant_id
        AND (n.leased_until IS NULL OR n.leased_until <= now())
        AND n.customer_id > :after_customer_id
        AND n.dedupe_key = loyalty.warning_key(a.account_id, a.expires_at, CAST(:timezone AS text))
        AND a.warned_for = a.expires_at
        AND a.expires_at < CAST(:warn_until AS timestamptz)
        AND a.balance > 0
        AND a.is_active
        -- Its account had this very date before, and a mail that named it: tomorrow's is another one.
        AND NOT EXISTS (
            SELECT 1
            FROM loyalty.notifications AS o
            WHERE
                o.merchant_id = :merchant_id
                AND o.dedupe_key = loyalty.warning_key(
                    a.account_id, CAST(:warn_until AS timestamptz), CAST(:timezone AS text)
                )
        )
    ORDER BY n.customer_id
    LIMIT :page_size
    FOR NO KEY UPDATE SKIP LOCKED
),

mails AS (
    UPDATE loyalty.notifications AS n
    SET
        dedupe_key = loyalty.warning_key(page.account_id, CAST(:warn_until AS timestamptz), CAST(:timezone AS text)),
        payload = jsonb_build_object('points', page.balance, 'expires_at', CAST(:warn_until AS timestamptz)),
        status = 'pending',
        attempts = 0,
        next_attempt_at = least(n.next_attempt_at, now()),
        leased_until = NULL,
        settled_at = NULL
    FROM page
    WHERE n.merchant_id = :merchant_id AND n.notification_id = page.notification_id
),

moved AS (
    UPDATE loyalty.accounts AS a
    SET expires_at = CAST(:warn_until AS timestamptz), warned_for = CAST(:warn_until AS timestamptz)
    FROM page
    WHERE a.merchant_id = :merchant_id AND a.account_id = page.account_id
    RETURNING a.account_id
)

SELECT
    (SELECT count(*) FROM moved) AS accounts,
    (SELECT max(page.customer_id) FROM page) AS last_customer_id;
