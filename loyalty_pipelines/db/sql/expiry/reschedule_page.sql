-- Computes expires_at anew for a page of a merchant's accounts, in key order, under the merchant's award lock: after the
-- programme's period or the merchant's time zone changed. Safe to repeat: a date that is a midnight of the new zone was
-- moved before. Its mail, where it waits, names the same day and gets the new instant. accounts_pkey,
-- notifications_once_per_cause.
-- Nobody gets less than the lead without another warning. Who was warned keeps the date that the mail named if the new one
-- is not later. What was already past its date when a programme that was off is on again is warned anew (:is_resumed).
WITH page AS MATERIALIZED (
    SELECT
        a.account_id,
        a.balance,
        a.held,
        a.is_active,
        a.expires_at,
        a.warned_for,
        loyalty.expiry_instant(a.last_activity_at, CAST(:expiration_days AS integer), CAST(:timezone AS text)) AS due_at
    FROM loyalty.accounts AS a
    WHERE a.merchant_id = :merchant_id AND a.account_id > :after_account_id
    ORDER BY a.account_id
    LIMIT :page_size
    FOR NO KEY UPDATE
),

decided AS (
    SELECT
        page.account_id,
        page.expires_at AS old_expires_at,
        page.warned_for,
        -- The same date on the merchant's new clock.
        CASE
            WHEN CAST(:is_resumed AS boolean) OR coalesce(page.warned_for <> page.expires_at, true) THEN NULL
            WHEN page.expires_at = loyalty.local_midnight(page.expires_at, 0, CAST(:timezone AS text)) THEN page.expires_at
            WHEN page.expires_at = loyalty.local_midnight(page.expires_at, 0, CAST(:known_timezone AS text))
                THEN CAST(CAST(page.expires_at AT TIME ZONE CAST(:known_timezone AS text) AS date) AS timestamp)
                    AT TIME ZONE CAST(:timezone AS text)
            -- Of a third time zone, from a run that came half-way: not a day early.
            ELSE loyalty.local_midnight(page.expires_at, 1, CAST(:timezone AS text))
        END AS promised_at,
        CASE
            WHEN page.due_at IS NULL THEN NULL
            WHEN page.balance <= 0 AND page.held = 0 AND (page.due_at <= CAST(:as_of AS timestamptz) OR NOT page.is_active)
                THEN NULL
            ELSE page.due_at
        END AS due_at,
        page.balance > 0 AS has_points
    FROM page
),

planned AS (
    SELECT
        decided.account_id,
        decided.old_expires_at,
        decided.warned_for AS old_warned_for,
        CASE
            WHEN decided.due_at IS NULL THEN NULL
            WHEN decided.promised_at >= decided.due_at THEN decided.promised_at
            WHEN decided.has_points THEN greatest(decided.due_at, CAST(:warn_until AS timestamptz))
            ELSE decided.due_at
        END AS expires_at,
        -- All others are told, unless the outbox has a mail of that date: one that was void meanwhile told nobody.
        CASE WHEN decided.promised_at >= decided.due_at THEN decided.promised_at END AS warned_for
    FROM decided
),

changed AS (
    UPDATE loyalty.accounts AS a
    SET expires_at = planned.expires_at, warned_for = planned.warned_for
    FROM planned
    WHERE
        a.merchant_id = :merchant_id
        AND a.account_id = planned.account_id
        AND (planned.expires_at, planned.warned_for)
        IS DISTINCT FROM (planned.old_expires_at, planned.old_warned_for)
    RETURNING a.account_id, planned.old_expires_at, planned.expires_at, planned.warned_for
),

mails AS (
    UPDATE loyalty.notifications AS n
    SET payload = n.payload || jsonb_build_object('expires_at', changed.expires_at)
    FROM changed
    WHERE
        n.merchant_id = :merchant_id
        AND n.dedupe_key = loyalty.warning_key(
            changed.account_id, changed.old_expires_at, CAST(:known_timezone AS text)
        )
        AND n.status IN ('pending', 'failed')
        AND changed.warned_for = changed.expires_at
        AND changed.expires_at <> changed.old_expires_at
        AND loyalty.warning_key(changed.account_id, changed.old_expires_at, CAST(:known_timezone AS text))
        = loyalty.warning_key(changed.account_id, changed.expires_at, CAST(:timezone AS text))
)

SELECT
    (SELECT max(page.account_id) FROM page) AS last_account_id,
    (SELECT count(*) FROM changed) AS accounts;
