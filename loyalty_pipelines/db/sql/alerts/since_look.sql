-- How long ago an observer looked; no row: never. Reads one row. Key: alert_observers_pkey.
SELECT
    o.looked_at,
    now() - o.looked_at AS age
FROM loyalty.alert_observers AS o
WHERE o.observer = :observer;
