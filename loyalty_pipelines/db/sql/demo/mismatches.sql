-- What goes wrong with six of the demo's subscriptions, with the classes in db/demo.py. S0001: its webhook was lost.
-- S0002: made twice, paid once. S0003: refunded, and it runs on. S0004: captured twice. S0005: another plan besides, which
-- was paid, too. S0006: charged in a wrong currency. Safe to repeat.
WITH lost AS (
    DELETE FROM sample_shop.subscriptions
    WHERE merchant_id LIKE 'shop-%' AND id = 'S0001'
),

refunded AS (
    UPDATE sample_shop.payments
    SET status = 'refunded', refunded = amount
    WHERE merchant_id LIKE 'shop-%' AND id = 'P0003'
),

in_another_currency AS (
    UPDATE sample_shop.payments
    SET currency = 'CHF'
    WHERE merchant_id LIKE 'shop-%' AND id = 'P0006'
),

made_again AS (
    INSERT INTO sample_shop.subscriptions (
        merchant_id, id, customer_id, plan_id, price, currency, period_start, period_end, created_at, updated_at
    )
    SELECT
        s.merchant_id,
        s.id || '-again',
        s.customer_id,
        p.id,
        p.price,
        p.currency,
        s.period_start,
        s.period_end,
        s.created_at,
        s.updated_at
    FROM sample_shop.subscriptions AS s
    INNER JOIN sample_shop.plans AS p
        ON p.merchant_id = s.merchant_id AND p.id = CASE WHEN s.id = 'S0005' THEN 'basic' ELSE s.plan_id END
    WHERE s.merchant_id LIKE 'shop-%' AND s.id IN ('S0002', 'S0005')
    ON CONFLICT (merchant_id, id) DO NOTHING
)

INSERT INTO sample_shop.payments (
    merchant_id, id, order_id, subscription_id, customer_id, plan_id, amount, currency, status, captured_at, period_start,
    period_end, created_at, updated_at
)
SELECT
    p.merchant_id,
    p.id || '-again',
    CASE WHEN p.id = 'P0004' THEN p.order_id END,
    CASE WHEN p.id = 'P0005' THEN p.order_id || '-again' END,
    p.customer_id,
    l.id,
    l.price,
    p.currency,
    p.status,
    p.captured_at + interval '1 minute',
    p.period_start,
    p.period_end,
    p.created_at,
    p.updated_at
FROM sample_shop.payments AS p
INNER JOIN sample_shop.plans AS l
    ON l.merchant_id = p.merchant_id AND l.id = CASE WHEN p.id = 'P0005' THEN 'basic' ELSE p.plan_id END
WHERE p.merchant_id LIKE 'shop-%' AND p.id IN ('P0004', 'P0005')
ON CONFLICT (merchant_id, id) DO NOTHING;
