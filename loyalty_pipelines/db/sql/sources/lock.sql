-- Lets one mapping be applied at a time; two at once would fail with "tuple concurrently updated". Safe to
-- repeat: the same transaction may take it again, and its end releases it. No index: it reads no table.
SELECT pg_advisory_xact_lock(hashtextextended('loyalty source mapping', 0));
