-- Makes open items due now and unparks them: one, those of a merchant, or (both NULL) all. Repeating it changes
-- nothing. tries stays: an item that was parked and fails again is parked again. reconciliation_queue_by_number, or the
-- open items.
UPDATE loyalty.reconciliation_queue AS q
SET
    next_try_at = now(),
    parked_at = NULL
WHERE
    q.resolved_at IS NULL
    AND (CAST(:merchant_id AS text) IS NULL OR q.merchant_id = :merchant_id)
    AND (CAST(:queue_id AS bigint) IS NULL OR q.queue_id = :queue_id);
