-- What the classes read, so that joins of few rows are planned as such.
ANALYZE source_orders, source_payments, source_subscriptions;
