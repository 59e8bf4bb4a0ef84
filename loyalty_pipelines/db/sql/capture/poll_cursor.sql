-- How far the last poll read; now before the first one. Locked, so that two polls don't enqueue the same orders.
WITH newest AS MATERIALIZED (
    SELECT c.polled_until
    FROM loyalty.capture_cursors AS c
    WHERE c.name = 'orders'
    FOR UPDATE
)

SELECT coalesce((SELECT newest.polled_until FROM newest), now()) AS polled_until;
