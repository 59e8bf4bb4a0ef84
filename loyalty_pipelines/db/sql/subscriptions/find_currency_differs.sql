-- Payment, subscription and plan don't agree on a currency; of payments of now, and of live subscriptions.
INSERT INTO suspected (
    merchant_id, class, object_type, object_id, policy, amount_at_risk, currency, evidence, ripe_at
)
SELECT
    p.merchant_id,
    'currency_differs',
    'payment',
    p.payment_id,
    'H',
    p.amount - p.refunded_amount,
    p.currency,
    jsonb_strip_nulls(jsonb_build_object(
        'payment_id', p.payment_id, 'order_id', p.order_id, 'subscription_id', p.subscription_id,
        'customer_id', p.customer_id, 'plan_id', p.plan_id, 'currency', p.currency,
        'subscription_currency', p.subscription_currency, 'plan_currency', p.plan_currency, 'captured_at', p.captured_at
    )),
    p.captured_at + greatest(interval '1 hour', m.grace)
FROM odd_payments AS p
INNER JOIN checked_merchants AS m ON m.merchant_id = p.merchant_id
WHERE
    p.status IN ('captured', 'disputed')
    AND p.amount > p.refunded_amount
    AND (p.currency <> p.plan_currency OR p.currency <> p.subscription_currency)
    AND (p.end_at > CAST(:as_of AS timestamptz) OR p.captured_at > CAST(:as_of AS timestamptz) - interval '31 days')
UNION ALL
SELECT
    s.merchant_id,
    'currency_differs',
    'subscription',
    s.subscription_id,
    'H',
    0,
    s.currency,
    jsonb_strip_nulls(jsonb_build_object(
        'subscription_id', s.subscription_id, 'customer_id', s.customer_id, 'plan_id', s.plan_id, 'currency', s.currency,
        'plan_currency', pl.currency
    )),
    s.created_at + greatest(interval '1 hour', m.grace)
FROM checked_subscriptions AS s
INNER JOIN checked_merchants AS m ON m.merchant_id = s.merchant_id
INNER JOIN checked_plans AS pl ON pl.merchant_id = s.merchant_id AND pl.plan_id = s.plan_id
WHERE s.is_live AND s.currency <> pl.currency;
