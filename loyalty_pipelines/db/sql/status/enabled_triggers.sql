-- The capture triggers that fire for ordinary sessions (O: origin, A: always; not D: disabled, not R: replica only).
-- Reads only; scans pg_trigger.
SELECT
    n.nspname::text AS schema_name,
    c.relname::text AS table_name,
    t.tgname::text AS trigger_name,
    t.tgenabled IN ('O', 'A') AS is_enabled
FROM pg_catalog.pg_trigger AS t
INNER JOIN pg_catalog.pg_proc AS p ON t.tgfoid = p.oid
INNER JOIN pg_catalog.pg_namespace AS pn ON p.pronamespace = pn.oid
INNER JOIN pg_catalog.pg_class AS c ON t.tgrelid = c.oid
INNER JOIN pg_catalog.pg_namespace AS n ON c.relnamespace = n.oid
WHERE pn.nspname = 'loyalty_source' AND t.tgparentid = 0 AND NOT t.tgisinternal;
