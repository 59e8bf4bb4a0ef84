-- Keeps everybody else from writing the shop's subscriptions until the transaction ends: a view's lock locks the table
-- under it. Reads go on. Safe to repeat: the same transaction may take it again. No index.
LOCK TABLE loyalty_source.writable_subscriptions IN SHARE ROW EXCLUSIVE MODE;
