-- Moves everything that one account has to another one. Each order moves with its points, so that a later refund finds
-- them on the account that has them; what remains of balance and stamps moves by one pair of entries. The caller holds
-- the merchant's award lock and both accounts. Once per merge: the unique key ledger_entries_reference_once refuses a
-- second one. Reads the account's entries (ledger_entries_pkey) and, because orders without points have no entries, the
-- merchant's order_points.
WITH parties AS MATERIALIZED (
    SELECT
        f.customer_id AS from_customer_id,
        f.balance AS from_balance,
        f.held AS from_held,
        f.stamp_count AS from_stamps,
        f.next_seq AS from_next_seq,
        f.last_expiry_seq AS from_expiry_seq,
        f.last_activity_at AS from_activity_at,
        f.expires_at AS from_expires_at,
        f.warned_for AS from_warned_for,
        CASE
            WHEN coalesce(f.last_activity_at > i.last_activity_at, f.last_activity_at IS NOT NULL) THEN f.expires_at
            ELSE i.expires_at
        END IS NULL AS is_later_without_date,
        f.account_id AS from_account_id,
        i.customer_id AS into_customer_id,
        -- What waits names an earlier date than both will have, and will not be sent any more.
        coalesce(i.expires_at >= f.expires_at, true) OR (
            SELECT count(*)
            FROM loyalty.open_warnings AS w
            WHERE w.merchant_id = i.merchant_id AND w.customer_id = i.customer_id
        ) = 0 AS is_into_reached,
        i.balance AS into_balance,
        i.last_activity_at AS into_activity_at,
        i.expires_at AS into_expires_at,
        i.next_seq AS into_next_seq,
        i.last_expiry_seq AS into_expiry_seq
    FROM loyalty.accounts AS f
    CROSS JOIN loyalty.accounts AS i
    WHERE
        f.merchant_id = :merchant_id
        AND f.account_id = :from_account_id
        AND i.merchant_id = :merchant_id
        AND i.account_id = :into_account_id
),

terms AS MATERIALIZED (
    SELECT
        t.points_expiration_days,
        CASE WHEN t.is_timezone_usable THEN t.timezone ELSE 'UTC' END AS timezone
    FROM loyalty.merchant_terms(:merchant_id) AS t
),

history AS (
    SELECT
        e.reference_id AS order_id,
        min(e.seq) AS first_seq,
        sum(e.points) FILTER (WHERE e.seq < parties.from_expiry_seq) AS points_before_expiry
    FROM loyalty.ledger_entries AS e
    CROSS JOIN parties
    WHERE e.merchant_id = :merchant_id AND e.account_id = :from_account_id AND e.reference_type = 'order'
    GROUP BY e.reference_id
),

moves AS MATERIALIZED (
    SELECT
        op.order_id,
        op.target_points,
        op.in_force_points,
        op.waived_points,
        op.stamps_in_force,
        op.program_version,
        facts.has_entries,
        -- What the order had earned on the account when its points last expired can't be taken back there, nor here.
        greatest(coalesce(history.points_before_expiry, 0), op.gone_points) AS gone_points,
        -- The numbers of an order's entries go on over all accounts that had points of it.
        (
            SELECT max(one.last_reference_seq)
            FROM loyalty.order_points AS one
            WHERE one.merchant_id = :merchant_id AND one.order_id = op.order_id
        ) AS last_reference_seq,
        -- The oldest first, so that the account they move to spends them in that order.
        row_number() OVER by_age AS entry_number,
        sum(op.in_force_points) OVER by_age AS points_so_far
    FROM loyalty.order_points AS op
    LEFT JOIN history ON history.order_id = op.order_id
    CROSS JOIN LATERAL (SELECT op.in_force_points <> 0 OR op.stamps_in_force <> 0 AS has_entries) AS facts
    WHERE op.merchant_id = :merchant_id AND op.account_id = :from_account_id
    WINDOW by_age AS (
        ORDER BY NOT facts.has_entries, history.first_seq, op.order_id
        ROWS UNBOUNDED PRECEDING
    )
),

totals AS MATERIALIZED (
    SELECT
        count(moves.order_id) AS orders,
        count(*) FILTER (WHERE moves.has_entries) AS entries,
        coalesce(sum(moves.in_force_points), 0) AS points,
        min(parties.from_balance) - coalesce(sum(moves.in_force_points), 0) AS points_besides,
        min(parties.from_stamps) - coalesce(sum(moves.stamps_in_force), 0) AS stamps_besides
    FROM parties
    LEFT JOIN moves ON true
),

-- A pair of accounts that was merged, parted by hand and is merged again has pairs of entries already.
earlier AS (
    SELECT coalesce(max(e.reference_seq), 0) AS reference_seq
    FROM loyalty.ledger_entries AS e
    CROSS JOIN parties
    WHERE e.merchant_id = :merchant_id AND e.reference_type = 'merge' AND e.reference_id = parties.from_customer_id
),

lines AS (
    SELECT
        CAST(:from_account_id AS bigint) AS account_id,
        parties.from_next_seq + moves.entry_number - 1 AS seq,
        'reversed' AS kind,
        -moves.in_force_points AS points,
        parties.from_balance - moves.points_so_far + moves.in_force_points AS balance_before,
        -moves.stamps_in_force AS stamps,
        'order' AS reference_type,
        moves.order_id AS reference_id,
        moves.last_reference_seq + 1 AS reference_seq,
        'merged into ' || parties.into_customer_id AS reason
    FROM moves
    CROSS JOIN parties
    WHERE moves.has_entries
    UNION ALL
    SELECT
        CAST(:into_account_id AS bigint),
        parties.into_next_seq + moves.entry_number - 1,
        're-earned',
        moves.in_force_points,
        parties.into_balance + moves.points_so_far - moves.in_force_points,
        moves.stamps_in_force,
        'order',
        moves.order_id,
        moves.last_reference_seq + 2,
        'merged from ' || parties.from_customer_id
    FROM moves
    CROSS JOIN parties
    WHERE moves.has_entries
    UNION ALL
    SELECT
        CAST(:from_account_id AS bigint),
        parties.from_next_seq + totals.entries,
        'adjusted',
        -totals.points_besides,
        totals.points_besides,
        -totals.stamps_besides,
        'merge',
        parties.from_customer_id,
        earlier.reference_seq + 1,
        'merged into ' || parties.into_customer_id || ': ' || :reason
    FROM totals
    CROSS JOIN parties
    CROSS JOIN earlier
    WHERE totals.points_besides <> 0 OR totals.stamps_besides <> 0
    UNION ALL
    SELECT
        CAST(:into_account_id AS bigint),
        parties.into_next_seq + totals.entries,
        'adjusted',
        totals.points_besides,
        parties.into_balance + totals.points,
        totals.stamps_besides,
        'merge',
        parties.from_customer_id,
        earlier.reference_seq + 2,
        'merged from ' || parties.from_customer_id || ': ' || :reason
    FROM totals
    CROSS JOIN parties
    CROSS JOIN earlier
    WHERE totals.points_besides <> 0 OR totals.stamps_besides <> 0
),

entries AS (
    INSERT INTO loyalty.ledger_entries (
        merchant_id, account_id, seq, kind, points, balance_before, balance_after, stamps,
        reference_type, reference_id, reference_seq, reason, actor, occurred_at
    )
    SELECT
        :merchant_id,
        lines.account_id,
        lines.seq,
        lines.kind,
        lines.points,
        lines.balance_before,
        lines.balance_before + lines.points,
        lines.stamps,
        lines.reference_type,
        lines.reference_id,
        lines.reference_seq,
        lines.reason,
        :actor,
        now()
    FROM lines
    ORDER BY lines.reference_id, lines.reference_seq
    RETURNING account_id
),

left_behind AS (
    UPDATE loyalty.order_points AS op
    SET
        target_points = 0,
        in_force_points = 0,
        waived_points = 0,
        stamps_in_force = 0,
        gone_points = 0,
        last_reference_seq = moves.last_reference_seq + CAST(moves.has_entries AS integer)
    FROM moves
    WHERE op.merchant_id = :merchant_id AND op.order_id = moves.order_id AND op.account_id = :from_account_id
),

arrived AS (
    INSERT INTO loyalty.order_points AS op (
        merchant_id, order_id, account_id, target_points, in_force_points, waived_points, stamps_in_force, gone_points,
        last_reference_seq, program_version
    )
    SELECT
        :merchant_id,
        moves.order_id,
        CAST(:into_account_id AS bigint),
        moves.target_points,
        moves.in_force_points,
        moves.waived_points,
        moves.stamps_in_force,
        -- Where the shop had moved the order between the two, both may have had points of it that expired. What of them
        -- is waived as well is not counted twice: the rest can still be taken.
        CASE
            WHEN coalesce(own.in_force_points, 0) = 0 THEN moves.gone_points
            WHEN moves.in_force_points = 0 THEN own.gone_points
            ELSE least(moves.gone_points, moves.target_points)
                + least(
                    greatest(
                        own.gone_points,
                        (
                            SELECT coalesce(sum(e.points), 0)
                            FROM loyalty.ledger_entries AS e
                            WHERE
                                e.merchant_id = :merchant_id
                                AND e.reference_type = 'order'
                                AND e.reference_id = moves.order_id
                                AND e.account_id = :into_account_id
                                AND e.seq < parties.into_expiry_seq
                        )
                    ),
                    own.target_points
                )
        END,
        moves.last_reference_seq + 2 * CAST(moves.has_entries AS integer),
        moves.program_version
    FROM moves
    CROSS JOIN parties
    LEFT JOIN loyalty.order_points AS own
        ON own.merchant_id = :merchant_id AND own.order_id = moves.order_id AND own.account_id = :into_account_id
    ORDER BY moves.order_id
    ON CONFLICT (merchant_id, order_id, account_id) DO UPDATE SET
        target_points = op.target_points + excluded.target_points,
        in_force_points = op.in_force_points + excluded.in_force_points,
        waived_points = op.waived_points + excluded.waived_points,
        stamps_in_force = op.stamps_in_force + excluded.stamps_in_force,
        gone_points = excluded.gone_points,
        last_reference_seq = excluded.last_reference_seq,
        program_version = CASE
            WHEN excluded.target_points > 0 THEN excluded.program_version
            ELSE op.program_version
        END
),

closed AS (
    UPDATE loyalty.accounts AS a
    SET
        balance = 0,
        held = 0,
        stamp_count = 0,
        is_active = false,
        is_debt_allowed = false,
        expires_at = NULL,
        warned_for = NULL,
        next_seq = a.next_seq + (SELECT count(*) FROM entries WHERE entries.account_id = :from_account_id)
    WHERE a.merchant_id = :merchant_id AND a.account_id = :from_account_id
),

-- The later of both dates: none of the two was told an earlier one. Where the one who was active later has none, because
-- the balance was empty when it came, it is at least what that would be.
date_of_both AS (
    SELECT
        CASE
            WHEN parties.is_later_without_date AND later.expires_at IS NULL THEN NULL
            ELSE greatest(
                parties.from_expires_at,
                parties.into_expires_at,
                CASE WHEN parties.is_later_without_date THEN later.expires_at END
            )
        END AS expires_at,
        -- Whoever brings points was told of a date. The one who is no more: by a mail that was sent. One that waits, or that
        -- could not be delivered there, may find the one who remains.
        parties.from_balance <= 0
        OR (
            parties.from_warned_for = parties.from_expires_at
            AND (
                SELECT count(*)
                FROM loyalty.notifications AS n
                WHERE
                    n.merchant_id = :merchant_id
                    AND n.dedupe_key = loyalty.warning_key(
                        parties.from_account_id, parties.from_warned_for, terms.timezone
                    )
                    AND n.status = 'sent'
            ) = 1
        ) AS is_from_told
    FROM parties
    CROSS JOIN terms
    CROSS JOIN LATERAL (
        SELECT
            loyalty.expiry_instant(
                greatest(parties.from_activity_at, parties.into_activity_at),
                terms.points_expiration_days,
                terms.timezone
            ) AS expires_at
    ) AS later
),

grown AS (
    UPDATE loyalty.accounts AS a
    SET
        balance = a.balance + parties.from_balance,
        held = a.held + parties.from_held,
        stamp_count = a.stamp_count + parties.from_stamps,
        is_debt_allowed = a.balance + parties.from_balance < a.held + parties.from_held,
        next_seq = a.next_seq + (SELECT count(*) FROM entries WHERE entries.account_id = :into_account_id),
        last_activity_at = greatest(a.last_activity_at, parties.from_activity_at),
        expires_at = date_of_both.expires_at,
        warned_for = CASE
            WHEN
                date_of_both.is_from_told
                AND (a.balance <= 0 OR (a.warned_for = a.expires_at AND parties.is_into_reached))
                AND (
                    (parties.from_balance > 0 AND parties.from_warned_for = date_of_both.expires_at)
                    OR a.warned_for = date_of_both.expires_at
                )
                THEN date_of_both.expires_at
        END
    FROM parties
    CROSS JOIN date_of_both
    WHERE a.merchant_id = :merchant_id AND a.account_id = :into_account_id
)

SELECT
    totals.orders,
    totals.points,
    totals.points_besides,
    totals.stamps_besides,
    (SELECT count(*) FROM entries) AS entries
FROM totals;
