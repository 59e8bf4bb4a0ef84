-- Writes the batch: locks its accounts in key order, works out each entry with its balances, and inserts entries,
-- order_points and balances together. Repeating it after a commit finds nothing to change.
-- FOR NO KEY UPDATE, because FOR UPDATE would block the foreign key checks of everybody else's entries; ordered,
-- because unordered locks gave 83 % deadlocks in a trial. Entries go in by order id: the unique index on the reference
-- then meets warm pages, and the accounts of a batch are few anyway.
WITH locked AS MATERIALIZED (
    SELECT
        a.account_id,
        a.customer_id,
        a.balance,
        a.held,
        a.next_seq,
        a.last_expiry_seq
    FROM loyalty.accounts AS a
    INNER JOIN (
        SELECT DISTINCT l.customer_id
        FROM award_lines AS l
        WHERE l.is_changed
    ) AS holders ON holders.customer_id = a.customer_id
    WHERE a.merchant_id = :merchant_id
    ORDER BY a.account_id
    FOR NO KEY UPDATE OF a
),

numbered AS (
    SELECT
        l.order_id,
        l.outcome,
        l.target_points,
        l.target_stamps,
        l.program_version,
        l.paid_at,
        l.changed_at,
        l.is_tracked,
        l.in_force_points,
        l.stamps_in_force,
        l.last_reference_seq,
        wanted.points AS points_wanted,
        a.account_id,
        a.balance,
        a.next_seq,
        a.balance - a.held AS available,
        l.target_stamps - l.stamps_in_force AS stamps,
        sum(wanted.points) OVER in_order AS points_so_far,
        row_number() OVER in_order AS entry_number
    FROM award_lines AS l
    INNER JOIN locked AS a ON a.customer_id = l.customer_id
    -- What an order had earned when the account's points last expired is gone: it can't be taken a second time. Read
    -- only for debits of accounts that had an expiry; in force less waived less gone is what came since and is there.
    -- gone_points went before the account was merged into this one; another expiry has taken the same points.
    CROSS JOIN LATERAL (
        SELECT
            CASE
                WHEN l.points_wanted < 0 AND (a.last_expiry_seq > 0 OR l.gone_points > 0)
                    THEN greatest(
                        l.points_wanted,
                        least(
                            0,
                            CAST(
                                greatest(
                                    (
                                        SELECT coalesce(sum(e.points), 0)
                                        FROM loyalty.ledger_entries AS e
                                        WHERE
                                            e.merchant_id = :merchant_id
                                            AND e.reference_type = 'order'
                                            AND e.reference_id = l.order_id
                                            AND e.account_id = a.account_id
                                            AND e.seq < a.last_expiry_seq
                                    ),
                                    l.gone_points
                                ) AS integer
                            ) + l.waived_points - l.in_force_points
                        )
                    )
                ELSE l.points_wanted
            END AS points
    ) AS wanted
    WHERE l.is_changed
    WINDOW in_order AS (
        PARTITION BY a.account_id
        -- Credits before debits, so that as little as possible has to be waived; then those without an entry, which
        -- debits become once the account is empty. So the entries of an account are numbered without gaps.
        ORDER BY
            CASE
                WHEN wanted.points = 0 AND l.target_stamps = l.stamps_in_force THEN 3
                WHEN wanted.points >= 0 THEN 0
                WHEN l.target_stamps <> l.stamps_in_force THEN 1
                ELSE 2
            END,
            l.paid_at,
            l.order_id
        ROWS UNBOUNDED PRECEDING
    )
),

lines AS MATERIALIZED (
    SELECT
        n.*,
        after.points_taken AS points_after,
        CAST(after.points_taken - before.points_taken AS integer) AS points
    FROM numbered AS n
    -- The change of the balance up to and including this line, and before it: never below zero (nor below what is
    -- held) unless the programme allows debt. An account that is in debt already is left there.
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN CAST(:is_debt_allowed AS boolean) THEN n.points_so_far
            ELSE greatest(n.available + n.points_so_far, least(0, n.available)) - n.available
        END AS points_taken
    ) AS after
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN CAST(:is_debt_allowed AS boolean) THEN n.points_so_far - n.points_wanted
            ELSE greatest(n.available + n.points_so_far - n.points_wanted, least(0, n.available)) - n.available
        END AS points_taken
    ) AS before
    ORDER BY n.order_id
),

entries AS (
    INSERT INTO loyalty.ledger_entries (
        merchant_id, account_id, seq, kind, points, balance_before, balance_after, stamps,
        reference_type, reference_id, reference_seq, actor, run_id, occurred_at
    )
    SELECT
        :merchant_id,
        lines.account_id,
        lines.next_seq + lines.entry_number - 1,
        CASE
            WHEN lines.points < 0 OR (lines.points = 0 AND lines.stamps < 0) THEN 'reversed'
            WHEN lines.last_reference_seq = 0 THEN 'earned'
            ELSE 're-earned'
        END,
        lines.points,
        lines.balance + lines.points_after - lines.points,
        lines.balance + lines.points_after,
        lines.stamps,
        'order',
        lines.order_id,
        lines.last_reference_seq + 1,
        :actor,
        :run_id,
        -- An order is earned when it is paid; later changes happened when the shop wrote them, if it says so plausibly.
        CASE
            WHEN lines.last_reference_seq = 0 THEN lines.paid_at
            WHEN lines.changed_at BETWEEN 'epoch' AND now() THEN lines.changed_at
            ELSE now()
        END
    FROM lines
    WHERE lines.points <> 0 OR lines.stamps <> 0
    RETURNING points
),

tracked AS (
    INSERT INTO loyalty.order_points (
        merchant_id, order_id, account_id, target_points, in_force_points, waived_points, stamps_in_force,
        last_reference_seq, program_version
    )
    SELECT
        :merchant_id,
        lines.order_id,
        lines.account_id,
        lines.target_points,
        lines.points,
        0,
        lines.target_stamps,
        lines.last_reference_seq + CAST(lines.points <> 0 OR lines.stamps <> 0 AS integer),
        lines.program_version
    FROM lines
    WHERE NOT lines.is_tracked
),

retargeted AS (
    UPDATE loyalty.order_points AS op
    SET
        target_points = lines.target_points,
        in_force_points = op.in_force_points + lines.points,
        waived_points = op.in_force_points + lines.points - lines.target_points,
        stamps_in_force = lines.target_stamps,
        last_reference_seq
        = lines.last_reference_seq + CAST(lines.points <> 0 OR lines.stamps <> 0 AS integer),
        program_version = coalesce(lines.program_version, op.program_version)
    FROM lines
    WHERE
        op.merchant_id = :merchant_id
        AND op.order_id = lines.order_id
        AND op.account_id = lines.account_id
        AND lines.is_tracked
),

totals AS MATERIALIZED (
    SELECT
        lines.account_id,
        sum(lines.points) AS points,
        sum(lines.stamps) AS stamps,
        count(*) FILTER (WHERE lines.points <> 0 OR lines.stamps <> 0) AS entries,
        max(lines.paid_at) FILTER (WHERE lines.outcome = 'earning') AS active_at
    FROM lines
    GROUP BY lines.account_id
),

moved AS (
    UPDATE loyalty.accounts AS a
    SET
        balance = a.balance + totals.points,
        stamp_count = a.stamp_count + totals.stamps,
        next_seq = a.next_seq + totals.entries,
        is_debt_allowed = CAST(:is_debt_allowed AS boolean) OR a.balance + totals.points < a.held,
        last_activity_at = greatest(a.last_activity_at, totals.active_at),
        expires_at = CASE
            WHEN totals.active_at > a.last_activity_at OR (totals.active_at IS NOT NULL AND a.last_activity_at IS NULL)
                THEN loyalty.expiry_instant(
                    totals.active_at,
                    CAST(:expiration_days AS integer),
                    CAST(:timezone AS text)
                )
            -- One whose empty balance passed its date has none: what comes late has the date of the last activity.
            ELSE coalesce(
                a.expires_at,
                loyalty.expiry_instant(
                    a.last_activity_at,
                    CAST(:expiration_days AS integer),
                    CAST(:timezone AS text)
                )
            )
        END,
        -- Nobody was warned of another date, also where it was the account's once before.
        warned_for = CASE
            WHEN totals.active_at > a.last_activity_at OR (totals.active_at IS NOT NULL AND a.last_activity_at IS NULL)
                THEN NULL
            WHEN a.expires_at IS NOT NULL THEN a.warned_for
        END
    FROM totals
    WHERE a.merchant_id = :merchant_id AND a.account_id = totals.account_id
    RETURNING totals.points
)

SELECT
    (SELECT count(*) FROM entries) AS entries_written,
    coalesce((SELECT sum(entries.points) FROM entries), 0) AS points_in_entries,
    coalesce((SELECT sum(moved.points) FROM moved), 0) AS points_in_balances,
    (
        -- An order that moved between customers has several lines, all but pure newcomers have numbers already.
        SELECT
            count(*) FILTER (WHERE NOT lines.is_tracked AND lines.last_reference_seq = 0)
            + count(DISTINCT lines.order_id) FILTER (WHERE lines.is_tracked OR lines.last_reference_seq > 0)
        FROM lines
    ) AS orders_changed;
