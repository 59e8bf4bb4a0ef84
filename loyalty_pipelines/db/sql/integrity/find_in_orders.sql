-- Orders whose entries are not what they are accounted for, account by account, and orders that were awarded twice: two
-- entries 'earned', two accounts that deserve them, or a credit that no row accounts for and that doubles what the order
-- had at most before. What gives back what was reversed, also by a merge, doubles nothing. All is counted in windows over
-- one pass of the shares, so that many wrong orders cost no more than many right ones. Indexes
-- ledger_entries_reference_once, order_points_pkey.
INSERT INTO found (merchant_id, class, object_type, object_id, points_difference, evidence)
WITH orders AS MATERIALIZED (
    SELECT DISTINCT
        i.merchant_id,
        i.order_id
    FROM integrity_orders AS i
    WHERE i.reference_type = 'order'
    -- In the order of the keys, whose pages are then read once.
    ORDER BY i.merchant_id, i.order_id
),

history AS (
    SELECT
        o.merchant_id,
        o.order_id,
        e.account_id,
        e.kind,
        e.points,
        e.stamps,
        e.reference_seq,
        sum(e.points) OVER in_order AS points_so_far
    FROM orders AS o
    INNER JOIN loyalty.ledger_entries AS e
        ON e.merchant_id = o.merchant_id AND e.reference_type = 'order' AND e.reference_id = o.order_id
    WINDOW in_order AS (PARTITION BY o.merchant_id, o.order_id ORDER BY e.reference_seq)
),

peaks AS (
    SELECT
        h.*,
        max(h.points_so_far) OVER (
            PARTITION BY h.merchant_id, h.order_id
            ORDER BY h.reference_seq
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS most_points_before
    FROM history AS h
),

entries AS (
    SELECT
        p.merchant_id,
        p.order_id,
        p.account_id,
        sum(p.points) AS points,
        sum(p.stamps) AS stamps,
        count(*) FILTER (WHERE p.kind = 'earned') AS times_earned,
        sum(p.points) FILTER (WHERE p.kind = 'earned' AND p.reference_seq <> 1) AS points_earned_again,
        max(p.reference_seq) FILTER (
            WHERE p.most_points_before > 0 AND p.points_so_far >= 2 * p.most_points_before
        ) AS doubled_seq
    FROM peaks AS p
    GROUP BY p.merchant_id, p.order_id, p.account_id
),

tracked AS (
    SELECT
        o.merchant_id,
        o.order_id,
        op.account_id,
        op.target_points,
        op.in_force_points,
        op.stamps_in_force,
        op.last_reference_seq
    FROM orders AS o
    INNER JOIN loyalty.order_points AS op ON op.merchant_id = o.merchant_id AND op.order_id = o.order_id
),

shares AS (
    SELECT
        coalesce(e.merchant_id, t.merchant_id) AS merchant_id,
        coalesce(e.order_id, t.order_id) AS order_id,
        coalesce(e.account_id, t.account_id) AS account_id,
        coalesce(e.points, 0) AS points_in_ledger,
        coalesce(e.stamps, 0) AS stamps_in_ledger,
        coalesce(e.times_earned, 0) AS times_earned,
        coalesce(e.points_earned_again, 0) AS points_earned_again,
        coalesce(t.target_points, 0) AS target_points,
        coalesce(t.in_force_points, 0) AS in_force_points,
        coalesce(t.stamps_in_force, 0) AS stamps_in_force,
        coalesce(e.points, 0) - coalesce(t.in_force_points, 0) AS difference,
        e.doubled_seq,
        t.last_reference_seq
    FROM entries AS e
    FULL JOIN tracked AS t
        ON t.merchant_id = e.merchant_id AND t.order_id = e.order_id AND t.account_id = e.account_id
),

judged AS (
    SELECT
        s.*,
        bool_or(s.difference <> 0 OR s.stamps_in_ledger <> s.stamps_in_force) OVER of_order AS is_different,
        sum(s.times_earned) OVER of_order > 1
        OR count(*) FILTER (WHERE s.target_points > 0) OVER of_order > 1
        OR (
            sum(s.difference) OVER of_order > 0
            AND coalesce(max(s.doubled_seq) OVER of_order > max(s.last_reference_seq) OVER of_order, false)
        ) AS is_twice,
        sum(s.difference) OVER of_order AS difference_in_all,
        min(s.difference) OVER of_order AS least_difference,
        max(s.difference) OVER of_order AS most_difference,
        nullif(sum(s.points_earned_again) OVER of_order, 0) AS points_earned_again_in_all,
        -- Of two accounts that deserve one order, one does too much.
        CASE
            WHEN count(*) FILTER (WHERE s.target_points > 0) OVER of_order > 1
                THEN min(s.target_points) FILTER (WHERE s.target_points > 0) OVER of_order
            ELSE 0
        END AS points_deserved_again
    FROM shares AS s
    WINDOW of_order AS (PARTITION BY s.merchant_id, s.order_id)
)

SELECT
    j.merchant_id,
    CASE WHEN j.is_twice THEN 'order_awarded_twice' ELSE 'order_points_differ' END,
    'order',
    j.order_id,
    CASE
        -- What was earned a second time is too much, also where it is accounted for.
        WHEN j.is_twice THEN greatest(j.difference_in_all + j.points_deserved_again, j.points_earned_again_in_all)
        -- Too many on one account and too few on another one don't cancel each other.
        WHEN j.least_difference < 0 AND j.most_difference > 0
            THEN CASE WHEN j.most_difference >= -j.least_difference THEN j.most_difference ELSE j.least_difference END
        ELSE j.difference_in_all
    END,
    jsonb_build_object(
        'accounts',
        jsonb_agg(
            jsonb_build_object(
                'account_id', j.account_id, 'customer_id', a.customer_id, 'points_in_ledger', j.points_in_ledger,
                'points_accounted_for', j.in_force_points, 'stamps_in_ledger', j.stamps_in_ledger,
                'stamps_accounted_for', j.stamps_in_force, 'times_earned', j.times_earned
            )
            ORDER BY j.account_id
        )
    )
FROM judged AS j
LEFT JOIN loyalty.accounts AS a ON a.merchant_id = j.merchant_id AND a.account_id = j.account_id
WHERE j.is_twice OR j.is_different
GROUP BY
    j.merchant_id, j.order_id, j.is_twice, j.difference_in_all, j.points_deserved_again, j.points_earned_again_in_all,
    j.least_difference, j.most_difference;
