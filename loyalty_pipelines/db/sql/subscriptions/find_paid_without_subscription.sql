-- Captured for a plan, and the customer has no subscription for it. Automatic where one payment of one order for one plan
-- names everything that a subscription needs, and nothing says otherwise. Of several payments of one order the first; the
-- others are captured_twice. One scan of the subscriptions, however many candidates there are.
INSERT INTO suspected (
    merchant_id, class, object_type, object_id, policy, amount_at_risk, currency, evidence, ripe_at
)
WITH candidates AS MATERIALIZED (
    SELECT
        c.*,
        row_number() OVER (
            PARTITION BY c.merchant_id, coalesce(c.order_id, '!' || c.payment_id) ORDER BY c.captured_at, c.payment_id
        ) AS place_in_order,
        count(*) OVER (PARTITION BY c.merchant_id, coalesce(c.order_id, '!' || c.payment_id)) AS payments_of_order,
        count(*) OVER (PARTITION BY c.merchant_id, c.customer_id, c.plan_id) AS payments_for_plan
    FROM odd_payments AS c
    WHERE
        c.status = 'captured'
        AND c.amount > c.refunded_amount
        AND c.plan_id IS NOT NULL
        AND (c.subscription_id IS NULL OR c.subscription_status = 'incomplete')
),

-- What the customer has of the plan. One whose status nobody knows may be the one that was paid, and one that is
-- incomplete may be about to be.
present AS MATERIALIZED (
    SELECT
        s.merchant_id,
        s.customer_id,
        s.plan_id,
        bool_or(s.is_kept) AS is_kept,
        bool_or(s.status = 'unrecognized') AS is_unknown,
        count(*) FILTER (WHERE s.status = 'incomplete') AS incomplete
    FROM checked_subscriptions AS s
    INNER JOIN (
        SELECT DISTINCT
            c.merchant_id,
            c.customer_id,
            c.plan_id
        FROM candidates AS c
    ) AS wanted
        ON wanted.merchant_id = s.merchant_id AND wanted.customer_id = s.customer_id AND wanted.plan_id = s.plan_id
    WHERE
        s.is_kept
        OR s.status = 'unrecognized'
        OR (s.status = 'incomplete' AND s.created_at > CAST(:as_of AS timestamptz) - interval '1 day')
    GROUP BY s.merchant_id, s.customer_id, s.plan_id
)

SELECT
    p.merchant_id,
    'paid_without_subscription',
    'payment',
    p.payment_id,
    CASE
        WHEN p.customer_id IS NULL OR p.plan_currency IS NULL THEN 'H'
        -- Nobody that the shop knows: payment_without_customer.
        WHEN
            CAST(:has_customers AS boolean)
            AND NOT EXISTS (
                SELECT 1
                FROM loyalty_source.customers AS cu
                WHERE cu.merchant_id = p.merchant_id AND cu.customer_id = p.customer_id
            )
            THEN 'H'
        WHEN
            p.is_order_agreed
            AND of_order.order_id IS NULL
            AND p.payments_of_order = 1
            AND p.payments_for_plan = 1
            AND p.refunded_amount = 0
            AND p.currency = p.plan_currency
            AND abs(p.amount - price.amount) <= greatest(0.01, price.amount * m.tolerance)
            AND p.end_at > CAST(:as_of AS timestamptz)
            AND NOT coalesce(present.is_unknown, false)
            AND (NOT coalesce(present.is_kept, false) OR coalesce(pl.allows_multiple, false))
            AND (coalesce(present.incomplete, 0) = 0 OR p.subscription_status = 'incomplete')
            THEN 'A'
        ELSE 'P'
    END,
    p.amount - p.refunded_amount,
    coalesce(p.currency, p.plan_currency),
    jsonb_strip_nulls(jsonb_build_object(
        'payment_id', p.payment_id, 'order_id', p.order_id, 'customer_id', p.customer_id, 'plan_id', p.plan_id,
        'subscription_id', p.subscription_id, 'subscription_status', p.subscription_status, 'amount', p.amount,
        'refunded_amount', p.refunded_amount, 'currency', p.currency, 'plan_amount', p.plan_amount,
        'captured_at', p.captured_at,
        'period_start', p.start_at, 'period_end', CASE WHEN pl.lasts < interval '100 years' THEN p.end_at END
    )),
    p.captured_at + greatest(interval '10 minutes', m.grace)
FROM candidates AS p
INNER JOIN checked_merchants AS m ON m.merchant_id = p.merchant_id
LEFT JOIN present
    ON present.merchant_id = p.merchant_id AND present.customer_id = p.customer_id AND present.plan_id = p.plan_id
LEFT JOIN (
    -- Payments that belong to a subscription count, too: the order has had what it paid for.
    SELECT
        r.merchant_id,
        r.order_id
    FROM repeated_payments AS r
    WHERE r.amount > r.refunded_amount
    GROUP BY r.merchant_id, r.order_id
    HAVING count(*) > 1
) AS of_order ON of_order.merchant_id = p.merchant_id AND of_order.order_id = p.order_id
LEFT JOIN checked_plans AS pl ON pl.merchant_id = p.merchant_id AND pl.plan_id = p.plan_id
CROSS JOIN LATERAL (
    SELECT
        loyalty.plan_price(
            p.plan_amount, p.discount_amount, p.points_discount_amount, p.points_redeemed, m.point_value_amount
        ) AS amount
) AS price
WHERE p.place_in_order = 1;
