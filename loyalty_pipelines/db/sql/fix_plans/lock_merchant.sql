-- One batch of fixes of a merchant at a time, until the transaction ends: whoever waited sees what the other one wrote.
SELECT pg_advisory_xact_lock(hashtextextended('loyalty fixes ' || CAST(:merchant_id AS text), 0));
