-- Orders whose entries are not what they are accounted for, account by account, and orders that were awarded twice: two
-- entries 'earned', two accounts that deserve them, or several credits and too many points. Indexes
-- ledger_entries_reference_once, order_points_pkey.
INSERT INTO found (merchant_id, class, object_type, object_id, points_difference, evidence)
SELECT
    f.merchant_id,
    CASE WHEN f.is_twice THEN 'order_awarded_twice' ELSE 'order_points_differ' END,
    'order',
    f.order_id,
    -- What was earned a second time is too much, also where it is accounted for.
    greatest(f.points_in_ledger - f.points_deserved, f.points_earned_again),
    jsonb_build_object('accounts', f.accounts)
FROM (
    SELECT
        o.merchant_id,
        o.order_id,
        coalesce(sum(one.points_in_ledger), 0) AS points_in_ledger,
        nullif(sum(one.points_earned_again), 0) AS points_earned_again,
        -- Of two accounts that deserve one order, one does too much.
        coalesce(sum(one.in_force_points), 0)
        - CASE
            WHEN count(*) FILTER (WHERE one.target_points > 0) > 1
                THEN coalesce(min(one.target_points) FILTER (WHERE one.target_points > 0), 0)
            ELSE 0
        END AS points_deserved,
        coalesce(sum(one.times_earned), 0) > 1
        OR count(*) FILTER (WHERE one.target_points > 0) > 1
        OR coalesce(sum(one.credits) > 1 AND sum(one.points_in_ledger) > sum(one.in_force_points), false) AS is_twice,
        coalesce(
            bool_or(one.points_in_ledger <> one.in_force_points OR one.stamps_in_ledger <> one.stamps_in_force), false
        ) AS is_different,
        jsonb_agg(
            jsonb_build_object(
                'account_id', one.account_id, 'customer_id', a.customer_id, 'points_in_ledger', one.points_in_ledger,
                'points_accounted_for', one.in_force_points, 'stamps_in_ledger', one.stamps_in_ledger,
                'stamps_accounted_for', one.stamps_in_force, 'times_earned', one.times_earned
            )
            ORDER BY one.account_id
        ) AS accounts
    FROM (
        SELECT DISTINCT
            i.merchant_id,
            i.order_id
        FROM integrity_orders AS i
        WHERE i.reference_type = 'order'
    ) AS o
    CROSS JOIN LATERAL (
        SELECT
            b.account_id,
            sum(b.points) AS points_in_ledger,
            sum(b.stamps) AS stamps_in_ledger,
            sum(b.times_earned) AS times_earned,
            sum(b.credits) AS credits,
            sum(b.points_earned_again) AS points_earned_again,
            sum(b.in_force_points) AS in_force_points,
            sum(b.stamps_in_force) AS stamps_in_force,
            sum(b.target_points) AS target_points
        FROM (
            SELECT
                e.account_id,
                e.points,
                e.stamps,
                CAST(e.kind = 'earned' AS integer) AS times_earned,
                CAST(e.points > 0 AS integer) AS credits,
                CASE WHEN e.kind = 'earned' AND e.reference_seq <> 1 THEN e.points ELSE 0 END AS points_earned_again,
                0 AS in_force_points,
                0 AS stamps_in_force,
                0 AS target_points
            FROM loyalty.ledger_entries AS e
            WHERE e.merchant_id = o.merchant_id AND e.reference_type = 'order' AND e.reference_id = o.order_id
            UNION ALL
            SELECT
                op.account_id,
                0,
                0,
                0,
                0,
                0,
                op.in_force_points,
                op.stamps_in_force,
                op.target_points
            FROM loyalty.order_points AS op
            WHERE op.merchant_id = o.merchant_id AND op.order_id = o.order_id
        ) AS b
        GROUP BY b.account_id
        OFFSET 0
    ) AS one
    LEFT JOIN loyalty.accounts AS a ON a.merchant_id = o.merchant_id AND a.account_id = one.account_id
    GROUP BY o.merchant_id, o.order_id
) AS f
WHERE f.is_twice OR f.is_different;
