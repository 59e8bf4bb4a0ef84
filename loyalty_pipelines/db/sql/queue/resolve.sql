-- Resolves an open item by hand. One that is resolved already stays as it is. Index reconciliation_queue_pkey.
UPDATE loyalty.reconciliation_queue AS q
SET
    resolved_at = now(),
    resolution = :reason,
    resolved_by = :actor
WHERE q.merchant_id = :merchant_id AND q.queue_id = :queue_id AND q.resolved_at IS NULL;
