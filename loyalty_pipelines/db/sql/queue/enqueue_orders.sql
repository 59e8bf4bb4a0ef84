-- Puts the merchant's due orders of the queue into the inbox, in pages by key, and counts it as a try: the award that
-- decides one closes its item. Repeating it finds none that is due. The last try is made like the others, and leaves
-- the item parked if it decides nothing. Reads the merchant's open items, reconciliation_queue_one_open_item_per_order.
WITH due AS MATERIALIZED (
    SELECT
        q.queue_id,
        q.order_id,
        q.customer_id
    FROM loyalty.reconciliation_queue AS q
    WHERE
        q.merchant_id = :merchant_id
        AND q.order_id > :after_order_id
        AND q.operation = 'award'
        AND q.resolved_at IS NULL
        AND q.parked_at IS NULL
        AND q.next_try_at <= :as_of
        AND (CAST(:only_queue_id AS bigint) IS NULL OR q.queue_id = :only_queue_id)
        -- quarantine_order.sql shortened the id: the shop has it by its whole id only.
        AND NOT (q.reason = 'database_error' AND q.order_id LIKE '% ... (md5 %)')
        AND NOT EXISTS (
            SELECT 1
            FROM loyalty.reconciliation_queue AS p
            WHERE
                p.merchant_id = q.merchant_id
                AND p.customer_id = q.customer_id
                AND p.resolved_at IS NULL
                AND p.parked_at IS NOT NULL
        )
    ORDER BY q.order_id
    LIMIT :page_size
    FOR UPDATE OF q SKIP LOCKED
),

tried AS (
    UPDATE loyalty.reconciliation_queue AS q
    SET
        tries = q.tries + 1,
        next_try_at = now() + loyalty.wait_before_try(q.tries + 1, :first_wait, :longest_wait),
        parked_at = CASE WHEN q.tries + 1 >= :max_tries THEN now() END
    FROM due
    WHERE q.merchant_id = :merchant_id AND q.queue_id = due.queue_id
),

enqueued AS (
    INSERT INTO loyalty.order_inbox (merchant_id, customer_id, order_id, source)
    SELECT
        :merchant_id,
        loyalty.customer_hint(due.customer_id),
        due.order_id,
        'queue'
    FROM due
)

SELECT
    due.queue_id,
    due.order_id
FROM due
ORDER BY due.order_id;
