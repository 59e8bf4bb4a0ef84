-- Gives the open items of the queue to the customer who remains, so that a parked one keeps back what it has to, and is
-- shown. Resolved ones stay history. Safe to repeat; reconciliation_queue_due holds the open items.
UPDATE loyalty.reconciliation_queue AS q
SET customer_id = :into_customer_id
WHERE q.merchant_id = :merchant_id AND q.customer_id = :customer_id AND q.resolved_at IS NULL;
