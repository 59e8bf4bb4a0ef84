-- One proof at a time, for the session: the snapshot is taken after it, so that two never write one finding.
-- However long that takes.
SELECT pg_advisory_lock(hashtextextended('loyalty integrity', 0))
FROM (SELECT set_config('lock_timeout', '0', true) AS lock_timeout LIMIT 1) AS settings;
