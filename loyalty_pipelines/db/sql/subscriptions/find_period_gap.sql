-- Paid for longer than the subscription runs: the customer loses what was paid. Only periods that have begun; a period
-- that is paid in advance begins when its turn comes. A derived period may differ by a tenth, because shops count months
-- in days. And: a hole between two paid periods of a live subscription, in which nobody paid.
INSERT INTO suspected (
    merchant_id, class, object_type, object_id, policy, amount_at_risk, currency, evidence, ripe_at
)
SELECT
    s.merchant_id,
    'period_gap',
    'subscription',
    s.subscription_id,
    'P',
    coalesce(s.amount, s.plan_amount, 0),
    coalesce(s.currency, s.plan_currency),
    jsonb_strip_nulls(jsonb_build_object(
        'subscription_id', s.subscription_id, 'customer_id', s.customer_id, 'plan_id', s.plan_id,
        'subscription_status', s.status, 'period_end', s.end_at, 'paid_until', paid.reaches_at
    )),
    paid.captured_at + greatest(interval '15 minutes', m.grace)
FROM uncovered_subscriptions AS s
INNER JOIN checked_merchants AS m ON m.merchant_id = s.merchant_id
INNER JOIN (
    -- Until when each is paid by periods that have begun; where a part was given back, for the rest of the period.
    SELECT
        p.merchant_id,
        p.subscription_id,
        max(
            CASE
                WHEN p.refunded_amount = 0 THEN p.end_at
                ELSE p.start_at + (p.end_at - p.start_at) * CAST(1 - p.refunded_amount / p.amount AS double precision)
            END
        ) FILTER (WHERE p.start_at <= CAST(:as_of AS timestamptz)) AS reaches_at,
        max(p.captured_at) AS captured_at,
        bool_and(p.is_period_given) AS is_given
    FROM watched_payments AS p
    WHERE p.status = 'captured' AND p.amount > p.refunded_amount
    GROUP BY p.merchant_id, p.subscription_id
) AS paid ON paid.merchant_id = s.merchant_id AND paid.subscription_id = s.subscription_id
WHERE
    (s.status IN ('active', 'past_due') OR (s.status = 'expired' AND s.cancelled_at IS NULL))
    AND paid.reaches_at > CAST(:as_of AS timestamptz)
    AND paid.reaches_at > s.end_at + CASE
        WHEN paid.is_given THEN interval '1 day'
        ELSE greatest(interval '1 day', s.lasts / 10)
    END
UNION ALL
SELECT
    p.merchant_id,
    'period_gap',
    'payment',
    p.payment_id,
    'H',
    0,
    p.currency,
    jsonb_strip_nulls(jsonb_build_object(
        'payment_id', p.payment_id, 'other_payment_id', p.previous_payment_id, 'subscription_id', p.subscription_id,
        'customer_id', p.customer_id, 'paid_until', p.earlier_end_at, 'period_start', p.start_at
    )),
    p.captured_at + greatest(interval '1 day', m.grace)
FROM paid_steps AS p
INNER JOIN checked_merchants AS m ON m.merchant_id = p.merchant_id
INNER JOIN checked_subscriptions AS s
    ON s.merchant_id = p.merchant_id AND s.subscription_id = p.subscription_id AND s.status IN ('active', 'past_due')
LEFT JOIN checked_plans AS pl ON pl.merchant_id = s.merchant_id AND pl.plan_id = s.plan_id
WHERE
    p.start_at > p.earlier_end_at + CASE
        WHEN p.is_period_given AND p.is_previous_given THEN interval '1 day'
        ELSE greatest(interval '1 day', coalesce(pl.lasts, interval '1 month') / 10)
    END
    AND p.start_at <= CAST(:as_of AS timestamptz);
