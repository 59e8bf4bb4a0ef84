-- Points that were redeemed for an order are not what the order gives for them: other points in the ledger than on the
-- order, or a discount that is not their value at that time.
INSERT INTO suspected (
    merchant_id, class, object_type, object_id, policy, amount_at_risk, currency, evidence, ripe_at
)
SELECT DISTINCT ON (o.merchant_id, o.order_id)
    o.merchant_id,
    'redeemed_value_differs',
    'order',
    o.order_id,
    'H',
    abs(coalesce(o.points_discount_amount, coalesce(o.points_redeemed, 0) * value.amount) - points.redeemed * value.amount),
    o.currency,
    jsonb_strip_nulls(jsonb_build_object(
        'order_id', o.order_id, 'customer_id', o.customer_id, 'points_on_order', o.points_redeemed,
        'points_in_ledger', o.held_points, 'points_discount_amount', o.points_discount_amount,
        'expected_amount', points.redeemed * value.amount
    )),
    greatest(o.paid_at, o.updated_at) + greatest(interval '1 hour', m.grace)
FROM odd_orders AS o
INNER JOIN checked_merchants AS m ON m.merchant_id = o.merchant_id
LEFT JOIN loyalty.program_periods AS p
    ON
        p.merchant_id = o.merchant_id
        AND o.paid_at >= p.valid_from
        AND (o.paid_at < p.valid_until OR p.valid_until IS NULL)
CROSS JOIN LATERAL (SELECT coalesce(p.point_value_amount, m.point_value_amount) AS amount) AS value
CROSS JOIN LATERAL (SELECT coalesce(o.held_points, o.points_redeemed, 0) AS redeemed) AS points
WHERE
    o.status IN ('paid', 'partially_refunded')
    AND (
        o.held_points <> o.points_redeemed
        OR abs(o.points_discount_amount - points.redeemed * value.amount) > 0.01
    )
ORDER BY o.merchant_id, o.order_id;
