-- All subscriptions, under the name that the classes read. A view, so that nothing is copied; dropped at the end of the
-- check.
CREATE TEMPORARY VIEW source_subscriptions AS
SELECT * FROM loyalty_source.subscriptions;
