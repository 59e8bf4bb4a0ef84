-- Claims a range of the merchant's inbox and works out what each order deserves and what the ledger shows for it, in
-- one snapshot taken under the merchant's lock. A row that commits later is not in the snapshot: it stays, and is seen
-- by a later batch. Safe to repeat: a rollback brings the claimed rows back.
-- Indexes: order_inbox_pkey for the range, the shop's own primary key for the orders, order_points_pkey.
-- The array hides the number of keys from the planner. It then expects few, and looks each up in the shop's index
-- instead of reading the whole orders table for every batch. In order of their ids the keys meet warm pages (0.7 x).
WITH claimed AS (
    DELETE FROM loyalty.order_inbox AS i
    WHERE
        i.merchant_id = :merchant_id
        AND (i.customer_id, i.inbox_id) > (:after_customer_id, :after_inbox_id)
        AND (i.customer_id, i.inbox_id) <= (:upto_customer_id, :upto_inbox_id)
    RETURNING i.order_id, i.enqueued_at
),

wanted AS (
    SELECT DISTINCT k.order_id COLLATE "C" AS order_id
    FROM unnest(ARRAY(SELECT claimed.order_id FROM claimed)) AS k (order_id)
    ORDER BY 1
),

verdicts AS (
    SELECT
        w.order_id,
        v.outcome,
        v.detail,
        v.target_points,
        v.target_stamps,
        p.version,
        o.paid_at,
        -- A refund changes an order, though perhaps not its row.
        greatest(o.updated_at, refunds.refunded_at) AS changed_at,
        op.account_id,
        op.in_force_points,
        op.waived_points,
        op.stamps_in_force,
        op.last_reference_seq,
        op.gone_points,
        a.customer_id AS account_customer_id,
        -- The orders of a customer who was merged into another one are that one's.
        coalesce(mc.into_customer_id, nullif(o.customer_id, '') COLLATE "C") AS order_customer_id
    FROM wanted AS w
    LEFT JOIN LATERAL loyalty_source.order_by_id(:merchant_id, w.order_id) AS o ON true
    LEFT JOIN LATERAL (
        SELECT
            sum(r.amount) AS amount,
            max(r.refunded_at) AS refunded_at
        FROM loyalty_source.refunds_of_order(:merchant_id, w.order_id) AS r
    ) AS refunds ON true
    LEFT JOIN loyalty.program_periods AS p
        ON
            p.merchant_id = :merchant_id
            AND o.paid_at >= p.valid_from
            AND (o.paid_at < p.valid_until OR p.valid_until IS NULL)
    LEFT JOIN loyalty.order_points AS op ON op.merchant_id = :merchant_id AND op.order_id = w.order_id
    LEFT JOIN loyalty.accounts AS a ON a.merchant_id = :merchant_id AND a.account_id = op.account_id
    LEFT JOIN loyalty.merged_customers AS mc
        ON mc.merchant_id = :merchant_id AND mc.customer_id = o.customer_id COLLATE "C"
    CROSS JOIN LATERAL loyalty.order_verdict(
        o.order_id, o.status, o.customer_id, o.total_amount, refunds.amount, o.points_redeemed, o.currency, o.paid_at,
        CAST(:currency AS text), p
    ) AS v
),

staged AS (
    INSERT INTO award_lines
    SELECT
        verdicts.order_id,
        verdicts.order_customer_id,
        coalesce(verdicts.account_customer_id, verdicts.order_customer_id),
        verdicts.account_id,
        verdicts.outcome,
        verdicts.detail,
        verdicts.target_points,
        verdicts.target_stamps,
        line.target_points,
        line.target_stamps,
        verdicts.version,
        verdicts.paid_at,
        verdicts.changed_at,
        verdicts.account_id IS NOT NULL,
        coalesce(verdicts.in_force_points, 0),
        coalesce(verdicts.waived_points, 0),
        coalesce(verdicts.stamps_in_force, 0),
        coalesce(verdicts.last_reference_seq, 0),
        loyalty.points_to_take(
            coalesce(verdicts.in_force_points, 0),
            coalesce(verdicts.waived_points, 0),
            CAST(line.target_points AS bigint)
        ),
        coalesce(verdicts.gone_points, 0)
    FROM verdicts
    CROSS JOIN LATERAL (
        SELECT
            -- An account that the order no longer belongs to deserves nothing for it.
            CASE
                WHEN verdicts.account_customer_id <> verdicts.order_customer_id THEN 0
                ELSE verdicts.target_points
            END AS target_points,
            CASE
                WHEN verdicts.account_customer_id <> verdicts.order_customer_id THEN 0
                ELSE verdicts.target_stamps
            END AS target_stamps
    ) AS line
)

SELECT
    count(*) AS rows_claimed,
    min(claimed.enqueued_at) AS oldest_enqueued_at,
    (SELECT count(*) FROM wanted) AS orders_claimed
FROM claimed;
