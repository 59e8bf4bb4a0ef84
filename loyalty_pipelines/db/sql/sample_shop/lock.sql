-- Lets one process at a time make the sample shop. Held until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('loyalty.sample_shop', 0));
