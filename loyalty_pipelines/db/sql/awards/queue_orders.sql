-- Puts the orders that can't be decided into the reconciliation queue, with their reason; an order that is there
-- already gets the new reason and one more attempt, and one that somebody let go for this reason stays out until the
-- shop changes it. Indexes reconciliation_queue_one_open_item_per_order, reconciliation_queue_resolved_by_hand.
INSERT INTO loyalty.reconciliation_queue (
    merchant_id, operation, order_id, customer_id, reason, detail, source_updated_at, run_id
)
SELECT DISTINCT ON (l.order_id)
    :merchant_id,
    'award',
    l.order_id,
    nullif(loyalty.customer_hint(l.order_customer_id), ''),
    l.outcome,
    l.detail,
    l.changed_at,
    :run_id
FROM award_lines AS l
WHERE
    l.outcome = ANY(:queue_outcomes)
    AND NOT EXISTS (
        SELECT 1
        FROM loyalty.award_problems AS p
        WHERE
            p.merchant_id = :merchant_id
            AND p.order_id = l.order_id
            AND p.dismissed_reason = l.outcome
            AND p.dismissed_at >= coalesce(l.changed_at, '-infinity')
    )
ORDER BY l.order_id
ON CONFLICT (merchant_id, order_id, operation, fingerprint) WHERE resolved_at IS NULL
DO UPDATE SET
    reason = excluded.reason,
    detail = excluded.detail,
    attempts = reconciliation_queue.attempts + 1,
    last_seen_at = now(),
    source_updated_at = excluded.source_updated_at,
    run_id = excluded.run_id;
