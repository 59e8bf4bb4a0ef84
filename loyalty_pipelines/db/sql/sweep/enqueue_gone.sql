-- Orders in the queue that the shop has deleted: looked at once more, their items are closed. Safe to repeat; indexes
-- reconciliation_queue_one_open_item_per_order and the shop's primary key.
INSERT INTO loyalty.order_inbox (merchant_id, order_id, source)
SELECT
    q.merchant_id,
    q.order_id,
    'sweep'
FROM loyalty.reconciliation_queue AS q
WHERE
    q.merchant_id = :merchant_id
    AND q.operation = 'award'
    AND q.resolved_at IS NULL
    -- quarantine_order.sql shortens an id that is too long for an index: the shop has it by its whole id only.
    AND NOT (q.reason = 'database_error' AND q.order_id LIKE '% ... (md5 %)')
    AND NOT EXISTS (
        SELECT 1
        FROM loyalty_source.order_by_id(q.merchant_id, q.order_id)
    );
