-- Reads the names of the relations that could be mapped, to suggest one. Safe to repeat: it only reads.
-- Scans pg_class: once per check, and only when a relation was not found.
SELECT
    n.nspname::text AS schema_name,
    c.relname::text AS table_name
FROM pg_catalog.pg_class AS c
INNER JOIN pg_catalog.pg_namespace AS n ON c.relnamespace = n.oid
WHERE
    c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND c.relpersistence <> 't'
    AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'loyalty', 'loyalty_source')
ORDER BY n.nspname, c.relname
LIMIT 20000;
