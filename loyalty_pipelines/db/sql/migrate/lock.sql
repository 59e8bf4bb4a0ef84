-- Held for the whole upgrade by its session, so that a second 'loyalty init' waits and then finds nothing to do.
SELECT pg_advisory_lock(hashtextextended('loyalty.migrate', 0));
