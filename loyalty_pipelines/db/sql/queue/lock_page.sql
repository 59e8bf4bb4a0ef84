-- The next page of the merchant's due updates and redemptions after a key, locked: all of a customer together, oldest
-- first. Another drain's are skipped; they are in the next pass if they still wait. Repeating it finds what is left.
-- Walks reconciliation_queue_by_customer from the key on; reconciliation_queue_parked.
SELECT
    q.queue_id,
    q.customer_id
FROM loyalty.reconciliation_queue AS q
WHERE
    q.merchant_id = :merchant_id
    AND (q.customer_id, q.queue_id) > (:after_customer_id, :after_queue_id)
    AND q.operation <> 'award'
    AND q.resolved_at IS NULL
    AND q.parked_at IS NULL
    AND q.next_try_at <= :as_of
    AND (CAST(:only_queue_id AS bigint) IS NULL OR q.queue_id = :only_queue_id)
    AND NOT EXISTS (
        SELECT 1
        FROM loyalty.reconciliation_queue AS p
        WHERE
            p.merchant_id = q.merchant_id
            AND p.customer_id = q.customer_id
            AND p.resolved_at IS NULL
            AND p.parked_at IS NOT NULL
    )
ORDER BY q.merchant_id, q.customer_id, q.queue_id
LIMIT :page_size
FOR UPDATE OF q SKIP LOCKED;
