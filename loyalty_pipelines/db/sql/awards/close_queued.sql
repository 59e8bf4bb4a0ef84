-- Closes the queue items of orders that could be decided this time, or are gone from the shop. Reads only the open
-- items of the merchant (reconciliation_queue_one_open_item_per_order); safe to repeat.
UPDATE loyalty.reconciliation_queue AS q
SET
    resolved_at = now(),
    resolution = CASE l.outcome
        WHEN 'order_missing' THEN 'the order is gone from the shop'
        ELSE 'the order was decided by a later award: ' || l.outcome
    END
FROM award_lines AS l
WHERE
    q.merchant_id = :merchant_id
    AND q.order_id = l.order_id
    AND q.operation = 'award'
    AND q.resolved_at IS NULL
    AND l.outcome IN ('earning', 'unpaid', 'no_programme', 'no_customer', 'order_missing');
