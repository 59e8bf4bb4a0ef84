-- Orders with more points in the ledger than order_points accounts for, with two accounts that deserve points of one
-- order, or with two entries of kind 'earned'. A right ledger has none; PostgreSQL's own keys refuse most of them. Reads
-- the ledger once, no index. :row_limit rows are shown, all are counted.
WITH entries AS (
    SELECT
        e.merchant_id,
        e.reference_id AS order_id,
        sum(e.points) AS points,
        count(*) FILTER (WHERE e.kind = 'earned') AS times_earned
    FROM loyalty.ledger_entries AS e
    WHERE e.reference_type = 'order'
    GROUP BY e.merchant_id, e.reference_id
),

tracked AS (
    SELECT
        op.merchant_id,
        op.order_id,
        sum(op.in_force_points) AS points,
        count(*) FILTER (WHERE op.target_points > 0) AS accounts
    FROM loyalty.order_points AS op
    GROUP BY op.merchant_id, op.order_id
)

SELECT
    entries.merchant_id,
    entries.order_id,
    entries.points AS points_in_ledger,
    coalesce(tracked.points, 0) AS points_accounted_for,
    count(*) OVER () AS orders
FROM entries
LEFT JOIN tracked ON tracked.merchant_id = entries.merchant_id AND tracked.order_id = entries.order_id
WHERE
    entries.points <> coalesce(tracked.points, 0)
    OR coalesce(tracked.accounts, 0) > 1
    OR entries.times_earned > 1
ORDER BY abs(entries.points - coalesce(tracked.points, 0)) DESC, entries.merchant_id, entries.order_id
LIMIT :row_limit;
