-- One proof at a time, for the session: the snapshot is taken after it, so that two never write one finding.
SELECT pg_advisory_lock(hashtextextended('loyalty integrity', 0));
