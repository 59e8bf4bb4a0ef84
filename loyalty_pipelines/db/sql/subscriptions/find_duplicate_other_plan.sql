-- Live for two plans of which neither allows another one beside it. A paid upgrade is none: the dearer one is paid, and the
-- cheaper one ends, or was not paid again since.
INSERT INTO suspected (
    merchant_id, class, object_type, object_id, policy, amount_at_risk, currency, evidence, ripe_at
)
SELECT DISTINCT ON (b.merchant_id, b.subscription_id)
    b.merchant_id,
    'duplicate_other_plan',
    'subscription',
    b.subscription_id,
    'H',
    b.price_amount,
    b.price_currency,
    jsonb_strip_nulls(jsonb_build_object(
        'subscription_id', b.subscription_id, 'plan_id', b.plan_id, 'customer_id', b.customer_id,
        'other_subscription_id', a.subscription_id, 'other_plan_id', a.plan_id
    )),
    b.created_at + greatest(interval '1 hour', m.grace)
FROM several_subscriptions AS a
INNER JOIN several_subscriptions AS b
    ON
        b.merchant_id = a.merchant_id
        AND b.customer_id = a.customer_id
        AND b.plan_id <> a.plan_id
        AND (b.created_at, b.subscription_id) > (a.created_at, a.subscription_id)
INNER JOIN checked_merchants AS m ON m.merchant_id = a.merchant_id
WHERE
    NOT a.allows_multiple
    AND NOT b.allows_multiple
    AND a.start_at < b.runs_until
    AND b.start_at < a.runs_until - interval '1 day'
    AND NOT (
        b.is_paid
        AND b.price_amount > a.price_amount
        AND (a.cancelled_at IS NOT NULL OR a.captured_at IS NULL OR a.captured_at < b.created_at)
    )
ORDER BY b.merchant_id, b.subscription_id, a.created_at, a.subscription_id;
