-- One check at a time, for the session: what one has found must not be closed by another one's older snapshot.
SELECT pg_advisory_lock(hashtextextended('loyalty subscriptions', 0))
FROM (SELECT set_config('lock_timeout', '0', true) AS lock_timeout LIMIT 1) AS settings;
