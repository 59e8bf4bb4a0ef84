-- Puts the orders that can't be decided into the reconciliation queue, with their reason; an order that is there
-- already gets the new reason and one more attempt. Index reconciliation_queue_one_open_item_per_order.
INSERT INTO loyalty.reconciliation_queue (
    merchant_id, operation, order_id, customer_id, reason, detail, source_updated_at, run_id
)
SELECT DISTINCT ON (l.order_id)
    :merchant_id,
    'award',
    l.order_id,
    l.order_customer_id,
    l.outcome,
    l.detail,
    l.changed_at,
    :run_id
FROM award_lines AS l
WHERE l.outcome = ANY(:queue_outcomes)
ORDER BY l.order_id
ON CONFLICT (merchant_id, order_id, operation) WHERE resolved_at IS NULL
DO UPDATE SET
    reason = excluded.reason,
    detail = excluded.detail,
    attempts = reconciliation_queue.attempts + 1,
    last_seen_at = now(),
    source_updated_at = excluded.source_updated_at,
    run_id = excluded.run_id;
