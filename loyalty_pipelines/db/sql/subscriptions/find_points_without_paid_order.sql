-- Points in force of an order that is not paid, or not any more. An order that the shop has deleted keeps its points:
-- deleting is not cancelling.
INSERT INTO suspected (
    merchant_id, class, object_type, object_id, policy, amount_at_risk, currency, evidence, ripe_at
)
SELECT
    o.merchant_id,
    'points_without_paid_order',
    'order',
    o.order_id,
    CASE WHEN q.queued_reason IS NULL THEN 'A' ELSE 'H' END,
    o.points * m.point_value_amount,
    m.currency,
    jsonb_strip_nulls(jsonb_build_object(
        'order_id', o.order_id, 'customer_id', o.customer_id, 'status', o.status,
        'points', o.points, 'account_id', o.account_id, 'queued', q.queued_reason
    )),
    o.updated_at + greatest(interval '1 hour', m.grace)
FROM unpaid_orders AS o
INNER JOIN checked_merchants AS m ON m.merchant_id = o.merchant_id
LEFT JOIN loyalty.award_problems AS q ON q.merchant_id = o.merchant_id AND q.order_id = o.order_id
WHERE q.dismissed_at IS NULL;
