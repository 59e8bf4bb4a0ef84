-- What the classes compare, so that their joins are planned for its size.
ANALYZE checked_plans, checked_subscriptions, checked_payments;
