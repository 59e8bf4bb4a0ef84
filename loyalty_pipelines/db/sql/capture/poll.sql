-- Poll mode: enqueues, of the orders that the shop changed or refunded since :since, those that the ledger is wrong
-- about, by the same rule as the sweep. So an order inside the overlap window is not brought again once it is awarded,
-- however often this is repeated. Indexes: the shop's on the time of change and its primary key, order_points_pkey.
INSERT INTO loyalty.order_inbox (merchant_id, customer_id, order_id, source)
SELECT DISTINCT
    candidate.merchant_id,
    loyalty.customer_hint(o.customer_id) AS customer_id,
    candidate.order_id,
    'poll'
FROM loyalty.changed_orders(CAST(:since AS timestamptz)) AS candidate
INNER JOIN LATERAL loyalty_source.order_by_id(candidate.merchant_id, candidate.order_id) AS o ON true
LEFT JOIN LATERAL (
    SELECT
        sum(r.amount) AS amount,
        max(r.refunded_at) AS refunded_at
    FROM loyalty_source.refunds_of_order(candidate.merchant_id, candidate.order_id) AS r
) AS refunds ON true
LEFT JOIN loyalty_source.merchants AS m ON m.merchant_id = candidate.merchant_id
LEFT JOIN loyalty.program_periods AS p
    ON
        p.merchant_id = candidate.merchant_id
        AND o.paid_at >= p.valid_from
        AND (o.paid_at < p.valid_until OR p.valid_until IS NULL)
LEFT JOIN loyalty.order_points AS op
    ON op.merchant_id = candidate.merchant_id AND op.order_id = candidate.order_id
LEFT JOIN loyalty.accounts AS a ON a.merchant_id = op.merchant_id AND a.account_id = op.account_id
LEFT JOIN loyalty.holds AS h ON h.merchant_id = candidate.merchant_id AND h.order_id = candidate.order_id
LEFT JOIN loyalty.merged_customers AS mc
    ON mc.merchant_id = candidate.merchant_id AND mc.customer_id = o.customer_id COLLATE "C"
LEFT JOIN LATERAL (
    SELECT known.*
    FROM loyalty.award_problems AS known
    WHERE known.merchant_id = candidate.merchant_id AND known.order_id = candidate.order_id
) AS q ON true
CROSS JOIN LATERAL loyalty.order_verdict(
    o.order_id, o.status, o.customer_id, o.total_amount, refunds.amount, o.points_redeemed, o.currency, o.paid_at,
    m.currency, p
) AS v
CROSS JOIN LATERAL (SELECT coalesce(mc.into_customer_id, o.customer_id COLLATE "C") AS customer_id) AS holder
WHERE
    (
        loyalty.is_order_different(
            v.outcome, v.target_points, v.target_stamps, holder.customer_id, a.customer_id,
            op.target_points, op.stamps_in_force, q.queued_reason
        )
        -- Let go by somebody, and not changed since.
        AND NOT (
            v.outcome = coalesce(q.dismissed_reason, '')
            AND q.dismissed_at >= coalesce(greatest(o.updated_at, refunds.refunded_at), '-infinity')
        )
        OR (
            v.outcome = 'earning' AND a.customer_id <> holder.customer_id
            AND loyalty.is_without_points(candidate.merchant_id, candidate.order_id, holder.customer_id)
        )
        OR (
            h.status IS NOT NULL
            AND loyalty.is_redemption_due(
                candidate.merchant_id, candidate.order_id, h.status, h.points, o.status, o.total_amount, refunds.amount,
                o.points_redeemed, p.point_value_amount
            )
        )
    )
    AND NOT EXISTS (
        SELECT 1
        FROM loyalty.order_inbox AS i
        WHERE
            i.merchant_id = candidate.merchant_id
            AND i.customer_id = loyalty.customer_hint(o.customer_id)
            AND i.order_id = candidate.order_id
    )
ORDER BY candidate.merchant_id, customer_id, candidate.order_id;
