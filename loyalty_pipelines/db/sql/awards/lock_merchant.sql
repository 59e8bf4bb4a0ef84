-- One awarding process per merchant at a time: whoever comes second reads what the first has written. Held until the
-- transaction ends, so a crash gives it back. Waits at most lock_timeout. Checkouts don't take it.
SELECT pg_advisory_xact_lock(hashtextextended('loyalty.award.' || :merchant_id, 0));
