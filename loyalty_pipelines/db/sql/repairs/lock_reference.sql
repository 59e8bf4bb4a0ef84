-- One adjustment of a reference at a time: two at once, even for two customers, would both find none. Held until the
-- transaction ends; taken before any account's lock.
SELECT pg_advisory_xact_lock(hashtextextended('loyalty.adjustment.' || :merchant_id || '.' || :reference, 0));
