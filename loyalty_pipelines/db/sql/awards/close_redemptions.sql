-- Closes the queue items of orders in the batch that owe no points any more: captured meanwhile, cancelled, or corrected.
-- A deleted order still owes them. Safe to repeat; index reconciliation_queue_one_open_item_per_order.
UPDATE loyalty.reconciliation_queue AS q
SET
    resolved_at = now(),
    resolution = 'the order owes no points any more'
FROM award_lines AS l
WHERE
    q.merchant_id = :merchant_id
    AND q.order_id = l.order_id
    AND q.operation = 'redeem'
    AND q.resolved_at IS NULL
    AND l.outcome <> 'order_missing'
    AND NOT (q.order_id = ANY(CAST(:order_ids AS text[])));
