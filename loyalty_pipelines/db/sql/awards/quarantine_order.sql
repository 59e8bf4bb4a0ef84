-- Takes one order that PostgreSQL refused to process out of the inbox and into the queue, with the error's text.
-- Safe to repeat; indexes order_inbox_pkey and reconciliation_queue_one_open_item_per_order.
WITH claimed AS (
    DELETE FROM loyalty.order_inbox AS i
    WHERE
        i.merchant_id = :merchant_id
        AND (i.customer_id, i.inbox_id) > (:after_customer_id, :after_inbox_id)
        AND (i.customer_id, i.inbox_id) <= (:upto_customer_id, :upto_inbox_id)
    RETURNING i.order_id, i.customer_id
)

INSERT INTO loyalty.reconciliation_queue (merchant_id, operation, order_id, customer_id, reason, detail, run_id)
SELECT DISTINCT ON (claimed.order_id)
    :merchant_id,
    'award',
    claimed.order_id,
    nullif(claimed.customer_id, ''),
    'database_error',
    :detail,
    :run_id
FROM claimed
ORDER BY claimed.order_id
ON CONFLICT (merchant_id, order_id, operation) WHERE resolved_at IS NULL
DO UPDATE SET
    reason = excluded.reason,
    detail = excluded.detail,
    attempts = reconciliation_queue.attempts + 1,
    last_seen_at = now(),
    run_id = excluded.run_id;
