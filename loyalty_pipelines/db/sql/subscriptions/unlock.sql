-- Gives back what lock.sql took.
SELECT pg_advisory_unlock(hashtextextended('loyalty subscriptions', 0));
