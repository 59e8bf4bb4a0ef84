-- Whether PostgreSQL can insert, update and delete in a relation: 4 stands for updates, 8 for inserts, 16 for deletes.
-- Safe to repeat: it only reads. Asked only where it matters: a foreign table's wrapper is asked, too, and may raise.
-- Index: pg_namespace_nspname_index, then pg_class_relname_nsp_index.
SELECT pg_relation_is_updatable(c.oid::regclass, true) & 28 = 28 AS is_writable
FROM pg_catalog.pg_class AS c
INNER JOIN pg_catalog.pg_namespace AS n ON c.relnamespace = n.oid
WHERE n.nspname = CAST(:schema_name AS text) AND c.relname = CAST(:table_name AS text);
