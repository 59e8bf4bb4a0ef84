-- The subscription of each of the demo's orders of plans, for a year. Safe to repeat.
INSERT INTO sample_shop.subscriptions (
    merchant_id, id, customer_id, plan_id, order_id, price, currency, period_start, period_end, created_at, updated_at
)
SELECT
    o.merchant_id,
    o.id,
    o.customer_id,
    o.plan_id,
    o.id,
    o.total,
    o.currency,
    o.paid_at,
    o.paid_at + interval '1 year',
    o.paid_at,
    o.paid_at
FROM sample_shop.orders AS o
WHERE o.merchant_id LIKE 'shop-%' AND o.id LIKE 'S____' AND o.plan_id IS NOT NULL
ON CONFLICT (merchant_id, id) DO NOTHING;
