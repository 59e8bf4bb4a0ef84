-- How many of these items still wait, and how many of them are parked. Reads only; reconciliation_queue_by_number.
SELECT
    count(*) AS items,
    count(q.parked_at) AS parked
FROM loyalty.reconciliation_queue AS q
WHERE q.queue_id = ANY(CAST(:queue_ids AS bigint[])) AND q.resolved_at IS NULL;
