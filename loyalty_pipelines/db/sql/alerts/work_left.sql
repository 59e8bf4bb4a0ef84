-- For each job that runs only when there is something to do, whether there is. Reads the first entry of an index each:
-- holds_open_by_expiry, reconciliation_queue's by next try, notifications_due. Reads only.
SELECT
    'release_holds_job' AS job,
    EXISTS(SELECT 1 FROM loyalty.holds AS h WHERE h.status = 'open' AND h.expires_at <= now()) AS is_left
UNION ALL
SELECT
    'drain_reconciliation_queue_job',
    EXISTS(SELECT 1 FROM loyalty.reconciliation_queue AS q WHERE q.resolved_at IS NULL AND q.parked_at IS NULL)
UNION ALL
SELECT
    'send_notifications_job',
    EXISTS(SELECT 1 FROM loyalty.notifications AS n WHERE n.status = 'pending');
