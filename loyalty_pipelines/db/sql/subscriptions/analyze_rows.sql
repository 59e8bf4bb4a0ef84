-- What the classes compare: what their joins are planned by.
ANALYZE checked_merchants (merchant_id),
checked_plans (merchant_id, plan_id),
checked_subscriptions (
    merchant_id, subscription_id, customer_id, plan_id, order_id, status, is_live, is_kept, subscription_key, order_key,
    customer_key
),
checked_payments (
    merchant_id, payment_id, subscription_id, order_id, customer_id, plan_id, status, is_plain, subscription_key
);
