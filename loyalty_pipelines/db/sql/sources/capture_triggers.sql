-- Reads the capture triggers that exist, on whatever table. Safe to repeat: it only reads. Index:
-- pg_proc_proname_args_nsp_index cannot serve a schema alone, so pg_trigger is scanned; once per apply.
-- Copies that a partitioned table makes on its partitions (tgparentid) go with their parent.
SELECT
    n.nspname::text AS schema_name,
    c.relname::text AS table_name,
    t.tgname::text AS trigger_name
FROM pg_catalog.pg_trigger AS t
INNER JOIN pg_catalog.pg_proc AS p ON t.tgfoid = p.oid
INNER JOIN pg_catalog.pg_namespace AS pn ON p.pronamespace = pn.oid
INNER JOIN pg_catalog.pg_class AS c ON t.tgrelid = c.oid
INNER JOIN pg_catalog.pg_namespace AS n ON c.relnamespace = n.oid
WHERE pn.nspname = 'loyalty_source' AND t.tgparentid = 0 AND NOT t.tgisinternal
ORDER BY n.nspname, c.relname, t.tgname;
