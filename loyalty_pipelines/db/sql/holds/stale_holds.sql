-- The next holds after a key that nobody captured in time, the oldest first. Walks holds_open_by_expiry from the key
-- on, which has open holds only. Reads only.
SELECT
    h.expires_at,
    h.merchant_id,
    h.order_id,
    h.account_id
FROM loyalty.holds AS h
WHERE
    h.status = 'open'
    AND h.expires_at <= :as_of
    AND (h.expires_at, h.merchant_id, h.order_id) > (:after_expires_at, :after_merchant_id, :after_order_id)
ORDER BY h.expires_at, h.merchant_id, h.order_id
LIMIT :page_size;
