-- Warns a page of accounts whose expires_at is near, in the order of the index accounts_expiring: the mail and the date it
-- names are one. The position is the only lower bound: with a second one PostgreSQL would begin each page there. Where less
-- than the lead is left, because nobody ran this in time, expires_at moves so that the lead is whole again
-- (:least_expires_at). Repeating it finds them warned; the outbox's key refuses a second mail of one date.
-- SKIP LOCKED: an account that a checkout has locked is tried again.
WITH page AS MATERIALIZED (
    SELECT
        a.account_id,
        a.customer_id,
        a.balance,
        a.expires_at,
        greatest(a.expires_at, CAST(:least_expires_at AS timestamptz)) AS promised_at
    FROM loyalty.expiring_accounts AS a
    WHERE
        a.merchant_id = :merchant_id
        AND a.expires_at <= CAST(:warn_until AS timestamptz)
        AND (a.expires_at, a.account_id) > (CAST(:after_expires_at AS timestamptz), CAST(:after_account_id AS bigint))
        AND a.is_to_be_warned
    ORDER BY a.expires_at, a.account_id
    LIMIT :page_size
    FOR NO KEY UPDATE SKIP LOCKED
),

mails AS (
    INSERT INTO loyalty.notifications AS n (merchant_id, dedupe_key, template, customer_id, payload)
    SELECT
        :merchant_id,
        loyalty.warning_key(page.account_id, page.promised_at, CAST(:timezone AS text)),
        'loyalty_points_expiring',
        page.customer_id,
        jsonb_build_object('points', page.balance, 'expires_at', page.promised_at)
    FROM page
    -- The date was another one when that mail's turn came, and is the same again since.
    ON CONFLICT (merchant_id, dedupe_key) DO UPDATE SET
        payload = excluded.payload,
        status = 'pending',
        attempts = 0,
        next_attempt_at = now(),
        waits_since = now(),
        settled_at = NULL,
        last_error = NULL
    WHERE n.status = 'void'
),

warned AS (
    UPDATE loyalty.accounts AS a
    SET expires_at = page.promised_at, warned_for = page.promised_at
    FROM page
    WHERE a.merchant_id = :merchant_id AND a.account_id = page.account_id
    RETURNING a.account_id
)

SELECT
    (SELECT count(*) FROM warned) AS accounts,
    (SELECT count(*) FROM page) AS accounts_read,
    (SELECT coalesce(sum(page.balance), 0) FROM page) AS points,
    (SELECT count(*) FROM page WHERE page.promised_at > page.expires_at) AS accounts_moved,
    (SELECT max(page.expires_at) FROM page) AS last_expires_at,
    (SELECT page.account_id FROM page ORDER BY page.expires_at DESC, page.account_id DESC LIMIT 1) AS last_account_id;
