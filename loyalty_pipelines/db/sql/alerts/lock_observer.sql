-- Keeps an observer out until the transaction ends, without looking in its place. Key: alert_observers_pkey.
SELECT o.observer
FROM loyalty.alert_observers AS o
WHERE o.observer = :observer
FOR UPDATE;
