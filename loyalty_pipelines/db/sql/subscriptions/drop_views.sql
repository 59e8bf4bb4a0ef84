-- What view_all_*.sql made; temporary views have no ON COMMIT DROP.
DROP VIEW source_orders, source_payments, source_subscriptions;
