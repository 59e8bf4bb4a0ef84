-- One import per merchant at a time, so that what is counted as new is new. Held until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('loyalty.import.' || :merchant_id, 0));
