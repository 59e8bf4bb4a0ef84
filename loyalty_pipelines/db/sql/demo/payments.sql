-- The payment of each of the demo's orders of plans, for the year of its subscription. Safe to repeat.
INSERT INTO sample_shop.payments (
    merchant_id, id, order_id, customer_id, plan_id, amount, currency, status, captured_at, period_start, period_end,
    created_at, updated_at
)
SELECT
    o.merchant_id,
    'P' || substr(o.id, 2),
    o.id,
    o.customer_id,
    o.plan_id,
    o.total,
    o.currency,
    'captured',
    o.paid_at,
    o.paid_at,
    o.paid_at + interval '1 year',
    o.paid_at,
    o.paid_at
FROM sample_shop.orders AS o
WHERE o.merchant_id LIKE 'shop-%' AND o.id LIKE 'S____' AND o.plan_id IS NOT NULL
ON CONFLICT (merchant_id, id) DO NOTHING;
