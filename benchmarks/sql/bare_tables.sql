-- The bare limit's tables: the same columns, keys and foreign keys, no checks, no triggers; and its input, the very same
-- rows in the order they have in the ledger.
CREATE TABLE bare_accounts (LIKE loyalty.accounts INCLUDING DEFAULTS INCLUDING IDENTITY INCLUDING STORAGE)
WITH (fillfactor = 70);
INSERT INTO bare_accounts (merchant_id, account_id, customer_id) OVERRIDING SYSTEM VALUE
SELECT merchant_id, account_id, customer_id FROM loyalty.accounts ORDER BY account_id;
ALTER TABLE bare_accounts ADD PRIMARY KEY (merchant_id, account_id), ADD UNIQUE (merchant_id, customer_id);

CREATE TABLE bare_entries (LIKE loyalty.ledger_entries INCLUDING DEFAULTS);
ALTER TABLE bare_entries
ADD PRIMARY KEY (merchant_id, account_id, seq),
ADD UNIQUE (merchant_id, reference_type, reference_id, reference_seq),
ADD FOREIGN KEY (merchant_id, account_id) REFERENCES bare_accounts (merchant_id, account_id);

CREATE TABLE bare_order_points (LIKE loyalty.order_points INCLUDING DEFAULTS);
ALTER TABLE bare_order_points ADD PRIMARY KEY (merchant_id, order_id, account_id);

CREATE TABLE bare_inbox (LIKE loyalty.order_inbox INCLUDING DEFAULTS);
INSERT INTO bare_inbox
SELECT merchant_id::text, customer_id::text, id, id::text, 'benchmark', now() FROM shop.orders ORDER BY orders.id;
ALTER TABLE bare_inbox ADD PRIMARY KEY (merchant_id, customer_id, inbox_id);

CREATE UNLOGGED TABLE entries_to_write AS SELECT * FROM loyalty.ledger_entries;
CREATE UNLOGGED TABLE balances_to_write AS SELECT * FROM loyalty.accounts;
CREATE UNLOGGED TABLE order_points_to_write AS SELECT * FROM loyalty.order_points;

VACUUM ANALYZE bare_accounts;
VACUUM ANALYZE bare_inbox;
VACUUM ANALYZE entries_to_write;
VACUUM ANALYZE balances_to_write;
VACUUM ANALYZE order_points_to_write;
CHECKPOINT;
