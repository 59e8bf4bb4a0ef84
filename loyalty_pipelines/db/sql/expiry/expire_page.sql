-- Takes what is due from a page of accounts, in the order of the index accounts_expiring: entry, balance and mail in one
-- statement. What is due is looked at again under the lock, so that activity since the plan saves an account; points that
-- a checkout holds stay. Repeating it finds nothing. An account whose empty balance passed its date gets no date, so
-- that nobody looks at it again. SKIP LOCKED: an account that a checkout has locked is tried again.
WITH page AS MATERIALIZED (
    SELECT
        a.account_id,
        a.customer_id,
        a.balance,
        a.held,
        a.next_seq,
        a.expires_at,
        a.has_free_points AS is_taken
    FROM loyalty.expiring_accounts AS a
    WHERE
        a.merchant_id = :merchant_id
        AND a.expires_at <= CAST(:as_of AS timestamptz)
        AND (a.expires_at, a.account_id) > (CAST(:after_expires_at AS timestamptz), CAST(:after_account_id AS bigint))
        AND CASE
            WHEN a.has_free_points
                THEN loyalty.may_expire(a.is_told, a.has_waiting_orders, CAST(:is_warning_required AS boolean))
            ELSE a.held = 0
        END
    ORDER BY a.expires_at, a.account_id
    LIMIT :page_size
    FOR NO KEY UPDATE SKIP LOCKED
),

entries AS (
    INSERT INTO loyalty.ledger_entries (
        merchant_id, account_id, seq, kind, points, balance_before, balance_after, reference_type, reference_id,
        reference_seq, actor, run_id, occurred_at
    )
    SELECT
        :merchant_id,
        page.account_id,
        page.next_seq,
        'expired',
        page.held - page.balance,
        page.balance,
        page.held,
        'expiry',
        page.account_id || '/' || page.next_seq,
        1,
        :actor,
        :run_id,
        page.expires_at
    FROM page
    WHERE page.is_taken
    RETURNING points
),

mails AS (
    INSERT INTO loyalty.notifications (merchant_id, dedupe_key, template, customer_id, payload)
    SELECT
        :merchant_id,
        'expired/' || page.account_id || '/' || page.next_seq,
        'loyalty_points_expired',
        page.customer_id,
        jsonb_build_object('points', page.balance - page.held, 'expires_at', page.expires_at)
    FROM page
    WHERE page.is_taken
),

moved AS (
    UPDATE loyalty.accounts AS a
    SET
        balance = CASE WHEN page.is_taken THEN page.held ELSE a.balance END,
        next_seq = CASE WHEN page.is_taken THEN a.next_seq + 1 ELSE a.next_seq END,
        last_expiry_seq = CASE WHEN page.is_taken THEN page.next_seq ELSE a.last_expiry_seq END,
        expires_at = CASE WHEN page.held > 0 THEN a.expires_at END,
        warned_for = CASE WHEN page.held > 0 THEN a.warned_for END
    FROM page
    WHERE a.merchant_id = :merchant_id AND a.account_id = page.account_id
    RETURNING CASE WHEN page.is_taken THEN page.held - page.balance ELSE 0 END AS points
)

SELECT
    (SELECT count(*) FROM entries) AS accounts,
    (SELECT count(*) FROM page) AS accounts_read,
    (SELECT coalesce(-sum(entries.points), 0) FROM entries) AS points_in_entries,
    (SELECT coalesce(-sum(moved.points), 0) FROM moved) AS points_in_balances,
    (SELECT max(page.expires_at) FROM page) AS last_expires_at,
    (SELECT page.account_id FROM page ORDER BY page.expires_at DESC, page.account_id DESC LIMIT 1) AS last_account_id;
