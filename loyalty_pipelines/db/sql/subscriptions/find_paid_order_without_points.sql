-- Paid, and the ledger has never heard of it: what it should have earned, by the rule that awards points. The award
-- engine gives them, once; what waits for a person in the queue stays there.
INSERT INTO suspected (
    merchant_id, class, object_type, object_id, policy, amount_at_risk, currency, evidence, ripe_at
)
SELECT
    o.merchant_id,
    'paid_order_without_points',
    'order',
    o.order_id,
    CASE WHEN q.queued_reason IS NULL THEN 'A' ELSE 'H' END,
    v.target_points * coalesce(p.point_value_amount, 0),
    m.currency,
    jsonb_strip_nulls(jsonb_build_object(
        'order_id', o.order_id, 'customer_id', o.customer_id, 'status', o.status, 'points', v.target_points,
        'paid_at', o.paid_at, 'queued', q.queued_reason
    )),
    greatest(o.paid_at, o.updated_at) + greatest(interval '1 hour', m.grace)
FROM unawarded_orders AS o
INNER JOIN checked_merchants AS m ON m.merchant_id = o.merchant_id
LEFT JOIN loyalty_source.merchants AS sm ON sm.merchant_id = o.merchant_id
INNER JOIN loyalty.program_periods AS p
    ON
        p.merchant_id = o.merchant_id
        AND o.paid_at >= p.valid_from
        AND (o.paid_at < p.valid_until OR p.valid_until IS NULL)
LEFT JOIN loyalty.award_problems AS q ON q.merchant_id = o.merchant_id AND q.order_id = o.order_id
LEFT JOIN LATERAL (
    SELECT sum(r.amount) AS amount
    FROM loyalty_source.refunds_of_order(o.merchant_id, o.order_id) AS r
) AS refunds ON true
CROSS JOIN LATERAL loyalty.order_verdict(
    o.order_id, o.status, o.customer_id, o.total_amount, refunds.amount, o.points_redeemed, o.currency, o.paid_at,
    sm.currency, p
) AS v
WHERE
    v.outcome = 'earning'
    AND v.target_points > 0
    AND q.dismissed_at IS NULL;
