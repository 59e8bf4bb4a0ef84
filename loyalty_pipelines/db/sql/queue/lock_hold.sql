-- The state of the order's redemption, under the lock of its account; no row: it has none. Safe to repeat. Index
-- holds_pkey.
SELECT (loyalty.lock_hold(h.merchant_id, h.order_id)).status
FROM loyalty.holds AS h
WHERE h.merchant_id = :merchant_id AND h.order_id = :order_id;
