-- The payments and subscriptions that classes look at: what their joins are planned by.
ANALYZE odd_payments (merchant_id, payment_id, order_id, customer_id, plan_id, subscription_id, status),
watched_payments (merchant_id, payment_id, subscription_id, subscription_key, status),
uncovered_subscriptions (merchant_id, subscription_id, is_uncovered),
paid_steps (merchant_id, subscription_id),
side_by_side (merchant_id, subscription_id, customer_id, plan_id);
