-- What the classes read: what joins of few rows are planned by.
ANALYZE source_orders (merchant_id, order_id, customer_id, plan_id, status),
source_payments (merchant_id, payment_id, order_id, subscription_id, customer_id, plan_id, status),
source_subscriptions (merchant_id, subscription_id, order_id, customer_id, plan_id, status);
