-- Takes one order that PostgreSQL refused to process out of the inbox and into the queue, with the error's text.
-- Safe to repeat; indexes order_inbox_pkey and reconciliation_queue_one_open_item_per_order. An id that is too long for
-- an index may be the very reason why the order is here: it is shortened, or the queue would refuse it too, in a form
-- that enqueue_gone.sql knows again.
WITH claimed AS (
    DELETE FROM loyalty.order_inbox AS i
    WHERE
        i.merchant_id = :merchant_id
        AND (i.customer_id, i.inbox_id) > (:after_customer_id, :after_inbox_id)
        AND (i.customer_id, i.inbox_id) <= (:upto_customer_id, :upto_inbox_id)
    RETURNING i.order_id, i.customer_id, i.enqueued_at
),

queued AS (
    INSERT INTO loyalty.reconciliation_queue (merchant_id, operation, order_id, customer_id, reason, detail, run_id)
    SELECT DISTINCT ON (claimed.order_id)
        :merchant_id,
        'award',
        CASE
            WHEN octet_length(claimed.order_id) <= 1000 THEN claimed.order_id
            ELSE left(claimed.order_id, 100) || ' ... (md5 ' || md5(claimed.order_id) || ')'
        END,
        nullif(claimed.customer_id, ''),
        'database_error',
        :detail,
        :run_id
    FROM claimed
    ORDER BY claimed.order_id
    ON CONFLICT (merchant_id, order_id, operation, fingerprint) WHERE resolved_at IS NULL
    DO UPDATE SET
        reason = excluded.reason,
        detail = excluded.detail,
        attempts = reconciliation_queue.attempts + 1,
        last_seen_at = now(),
        run_id = excluded.run_id
    RETURNING order_id
)

SELECT
    count(*) AS rows_claimed,
    min(claimed.enqueued_at) AS oldest_enqueued_at,
    ARRAY(SELECT queued.order_id FROM queued) AS order_ids
FROM claimed;
