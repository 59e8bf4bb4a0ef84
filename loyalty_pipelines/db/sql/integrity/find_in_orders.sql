-- Orders whose entries are not what they are accounted for, account by account, and orders that were awarded twice: two
-- entries 'earned', two accounts that deserve them, or several credits and too many points. What is shown of an order is
-- gathered for those few. Indexes ledger_entries_reference_once, order_points_pkey.
INSERT INTO found (merchant_id, class, object_type, object_id, points_difference, evidence)
WITH orders AS MATERIALIZED (
    SELECT DISTINCT
        i.merchant_id,
        i.order_id
    FROM integrity_orders AS i
    WHERE i.reference_type = 'order'
),

entries AS (
    SELECT
        o.merchant_id,
        o.order_id,
        e.account_id,
        sum(e.points) AS points,
        sum(e.stamps) AS stamps,
        count(*) FILTER (WHERE e.kind = 'earned') AS times_earned,
        count(*) FILTER (WHERE e.points > 0) AS credits,
        sum(e.points) FILTER (WHERE e.kind = 'earned' AND e.reference_seq <> 1) AS points_earned_again
    FROM orders AS o
    INNER JOIN loyalty.ledger_entries AS e
        ON e.merchant_id = o.merchant_id AND e.reference_type = 'order' AND e.reference_id = o.order_id
    GROUP BY o.merchant_id, o.order_id, e.account_id
),

tracked AS (
    SELECT
        o.merchant_id,
        o.order_id,
        op.account_id,
        op.target_points,
        op.in_force_points,
        op.stamps_in_force
    FROM orders AS o
    INNER JOIN loyalty.order_points AS op ON op.merchant_id = o.merchant_id AND op.order_id = o.order_id
),

shares AS MATERIALIZED (
    SELECT
        coalesce(e.merchant_id, t.merchant_id) AS merchant_id,
        coalesce(e.order_id, t.order_id) AS order_id,
        coalesce(e.account_id, t.account_id) AS account_id,
        coalesce(e.points, 0) AS points_in_ledger,
        coalesce(e.stamps, 0) AS stamps_in_ledger,
        coalesce(e.times_earned, 0) AS times_earned,
        coalesce(e.credits, 0) AS credits,
        coalesce(e.points_earned_again, 0) AS points_earned_again,
        coalesce(t.target_points, 0) AS target_points,
        coalesce(t.in_force_points, 0) AS in_force_points,
        coalesce(t.stamps_in_force, 0) AS stamps_in_force
    FROM entries AS e
    FULL JOIN tracked AS t
        ON t.merchant_id = e.merchant_id AND t.order_id = e.order_id AND t.account_id = e.account_id
),

judged AS (
    SELECT
        s.merchant_id,
        s.order_id,
        sum(s.points_in_ledger) AS points_in_ledger,
        nullif(sum(s.points_earned_again), 0) AS points_earned_again,
        -- Of two accounts that deserve one order, one does too much.
        sum(s.in_force_points)
        - CASE
            WHEN count(*) FILTER (WHERE s.target_points > 0) > 1
                THEN min(s.target_points) FILTER (WHERE s.target_points > 0)
            ELSE 0
        END AS points_deserved,
        sum(s.times_earned) > 1
        OR count(*) FILTER (WHERE s.target_points > 0) > 1
        OR (sum(s.credits) > 1 AND sum(s.points_in_ledger) > sum(s.in_force_points)) AS is_twice,
        bool_or(s.points_in_ledger <> s.in_force_points OR s.stamps_in_ledger <> s.stamps_in_force) AS is_different
    FROM shares AS s
    GROUP BY s.merchant_id, s.order_id
)

SELECT
    j.merchant_id,
    CASE WHEN j.is_twice THEN 'order_awarded_twice' ELSE 'order_points_differ' END,
    'order',
    j.order_id,
    -- What was earned a second time is too much, also where it is accounted for.
    greatest(j.points_in_ledger - j.points_deserved, j.points_earned_again),
    jsonb_build_object('accounts', shown.accounts)
FROM judged AS j
CROSS JOIN LATERAL (
    SELECT
        jsonb_agg(
            jsonb_build_object(
                'account_id', s.account_id, 'customer_id', a.customer_id, 'points_in_ledger', s.points_in_ledger,
                'points_accounted_for', s.in_force_points, 'stamps_in_ledger', s.stamps_in_ledger,
                'stamps_accounted_for', s.stamps_in_force, 'times_earned', s.times_earned
            )
            ORDER BY s.account_id
        ) AS accounts
    FROM shares AS s
    LEFT JOIN loyalty.accounts AS a ON a.merchant_id = s.merchant_id AND a.account_id = s.account_id
    WHERE s.merchant_id = j.merchant_id AND s.order_id = j.order_id
) AS shown
WHERE j.is_twice OR j.is_different;
