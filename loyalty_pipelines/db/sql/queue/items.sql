-- Items of the queue, the newest first. blocked_by is a parked item of the same customer. Reads only;
-- reconciliation_queue_by_number backwards for :is_all, else the open items (reconciliation_queue_due and _parked).
SELECT
    q.merchant_id,
    q.queue_id,
    q.operation,
    q.order_id,
    q.customer_id,
    q.reason,
    q.detail,
    q.points_earned,
    q.points_redeemed,
    q.order_total,
    q.attempts,
    q.tries,
    q.created_at,
    q.last_seen_at,
    q.next_try_at,
    q.parked_at,
    q.resolved_at,
    q.resolution,
    q.resolved_by,
    q.run_id,
    (
        SELECT min(p.queue_id)
        FROM loyalty.reconciliation_queue AS p
        WHERE
            p.merchant_id = q.merchant_id
            AND p.customer_id = q.customer_id
            AND p.queue_id <> q.queue_id
            AND p.resolved_at IS NULL
            AND p.parked_at IS NOT NULL
            AND q.resolved_at IS NULL
    ) AS blocked_by
FROM loyalty.reconciliation_queue AS q
WHERE
    (:is_all OR q.resolved_at IS NULL)
    AND (NOT :is_parked OR (q.parked_at IS NOT NULL AND q.resolved_at IS NULL))
    AND (CAST(:merchant_id AS text) IS NULL OR q.merchant_id = :merchant_id)
    AND (CAST(:queue_id AS bigint) IS NULL OR q.queue_id = :queue_id)
ORDER BY q.queue_id DESC
LIMIT :row_limit;
