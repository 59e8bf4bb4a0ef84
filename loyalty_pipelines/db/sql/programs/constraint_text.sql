-- The text of one constraint of loyalty.programs: the ranges are written there and nowhere else. Reads only;
-- pg_constraint_conrelid_contypid_conname_index.
SELECT pg_get_constraintdef(c.oid, true) AS constraint_text
FROM pg_catalog.pg_constraint AS c
WHERE c.conrelid = 'loyalty.programs'::regclass AND c.conname = CAST(:constraint_name AS text);
