-- Locks orders in the order of their ids, as far as whoever applied the mapping may. Safe to repeat. Index: the shop's
-- primary key.
SELECT loyalty_source.lock_orders(CAST(:merchant_id AS text), CAST(:order_ids AS text[]));
