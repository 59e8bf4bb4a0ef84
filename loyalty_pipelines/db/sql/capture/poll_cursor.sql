-- How far the last poll read; no row before the first one. Locked, so that two polls don't enqueue the same orders.
SELECT c.polled_until
FROM loyalty.capture_cursors AS c
WHERE c.name = 'orders'
FOR UPDATE;
