-- Writes the opening entries and moves the balances, on accounts that are locked in key order. Once per customer: what
-- has an opening entry is left out, and the unique key ledger_entries_reference_once would refuse a second one. A later
-- activity of the account stays.
WITH locked AS MATERIALIZED (
    SELECT
        a.merchant_id,
        a.account_id,
        a.customer_id,
        a.balance,
        a.next_seq,
        b.points,
        b.active_at,
        b.own_expires_at,
        b.points_expiration_days,
        b.timezone
    FROM loyalty.accounts AS a
    INNER JOIN opening_balances AS b ON b.merchant_id = a.merchant_id AND b.customer_id = a.customer_id
    WHERE b.points > 0 AND b.opening_points IS NULL
    ORDER BY a.merchant_id, a.account_id
    FOR NO KEY UPDATE OF a
),

entries AS (
    INSERT INTO loyalty.ledger_entries (
        merchant_id, account_id, seq, kind, points, balance_before, balance_after,
        reference_type, reference_id, reference_seq, reason, actor, occurred_at
    )
    SELECT
        locked.merchant_id,
        locked.account_id,
        locked.next_seq,
        'opening',
        locked.points,
        locked.balance,
        locked.balance + locked.points,
        'opening',
        locked.customer_id,
        1,
        :reason,
        :actor,
        locked.active_at
    FROM locked
    RETURNING points
),

moved AS (
    UPDATE loyalty.accounts AS a
    SET
        balance = a.balance + locked.points,
        next_seq = a.next_seq + 1,
        is_debt_allowed = a.balance + locked.points < a.held,
        last_activity_at = greatest(a.last_activity_at, locked.active_at),
        -- One whose empty balance passed its date has none, and nobody was warned of what comes after it.
        expires_at = CASE
            WHEN a.last_activity_at >= locked.active_at
                THEN coalesce(
                    a.expires_at,
                    loyalty.expiry_instant(a.last_activity_at, locked.points_expiration_days, locked.timezone)
                )
            ELSE locked.own_expires_at
        END,
        warned_for = CASE
            WHEN a.last_activity_at >= locked.active_at AND a.expires_at IS NOT NULL THEN a.warned_for
        END
    FROM locked
    WHERE a.merchant_id = locked.merchant_id AND a.account_id = locked.account_id
    RETURNING locked.points
)

SELECT
    coalesce((SELECT sum(entries.points) FROM entries), 0) AS points_in_entries,
    coalesce((SELECT sum(moved.points) FROM moved), 0) AS points_in_balances;
