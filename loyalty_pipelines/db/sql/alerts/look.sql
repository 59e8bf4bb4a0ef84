-- The observer looks now: its row is locked until the transaction ends, so that two at once write one after the other.
-- Repeating it moves the instant. Key: alert_observers_pkey.
INSERT INTO loyalty.alert_observers AS o (observer, looked_at)
VALUES (:observer, now())
ON CONFLICT (observer) DO UPDATE SET looked_at = now()
RETURNING o.looked_at;
