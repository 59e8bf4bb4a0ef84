-- Gives the lock of lock.sql back; harmless when it is not held.
SELECT pg_advisory_unlock(hashtextextended('loyalty.migrate', 0));
