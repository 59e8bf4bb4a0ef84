-- The customer's open items in the reconciliation queue, oldest first. Reads only; the merchant's part of
-- reconciliation_queue_one_open_item_per_order, which holds open items only.
SELECT
    q.queue_id,
    q.operation,
    q.order_id,
    q.reason,
    q.detail,
    q.attempts,
    q.created_at,
    q.last_seen_at
FROM loyalty.reconciliation_queue AS q
WHERE q.merchant_id = :merchant_id AND q.customer_id = :customer_id AND q.resolved_at IS NULL
ORDER BY q.queue_id;
