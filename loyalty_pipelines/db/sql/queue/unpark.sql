-- Lets the parked items of a customer be tried again, from now on and as often as new ones. Repeating it finds none.
-- Index reconciliation_queue_parked.
UPDATE loyalty.reconciliation_queue AS q
SET
    next_try_at = now(),
    parked_at = NULL,
    tries = 0
WHERE
    q.merchant_id = :merchant_id
    AND q.customer_id = :customer_id
    AND q.resolved_at IS NULL
    AND q.parked_at IS NOT NULL;
