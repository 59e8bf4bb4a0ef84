-- Reads one relation of the shop and what the current user may do with it. Safe to repeat: it only reads.
-- Index: pg_namespace_nspname_index, then pg_class_relname_nsp_index. The names are compared as text, so a
-- name longer than an identifier finds nothing instead of being cut to another relation's name.
SELECT
    c.oid::bigint AS relation_oid,
    c.relkind::text AS kind,
    c.relpersistence::text AS persistence,
    c.oid IN (SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i) AS is_child,
    has_schema_privilege(n.oid, 'USAGE') AS can_use_schema,
    has_table_privilege(c.oid, 'SELECT') AS can_select,
    has_table_privilege(c.oid, 'TRIGGER') AS can_trigger,
    array_to_string(
        ARRAY(
            SELECT r.privilege
            FROM unnest(ARRAY['INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS r (privilege, position)
            WHERE NOT has_table_privilege(c.oid, r.privilege)
            ORDER BY r.position
        ),
        ', '
    ) AS missing_rights,
    c.relkind IN ('r', 'p') AND row_security_active(c.oid) AS hides_rows,
    pg_get_userbyid(c.relowner)::text AS owner,
    coalesce(
        (
            SELECT
                jsonb_agg(
                    (
                        SELECT jsonb_agg(a.attname)
                        FROM pg_catalog.pg_attribute AS a
                        WHERE
                            a.attrelid = i.indrelid
                            AND a.attnum = ANY(((i.indkey)::int2[])[0:i.indnkeyatts - 1])
                    )
                )
            FROM pg_catalog.pg_index AS i
            WHERE
                i.indrelid = c.oid
                AND i.indisunique
                AND i.indisvalid
                AND i.indpred IS NULL
                AND i.indexprs IS NULL
        ),
        '[]'
    ) AS unique_keys
FROM pg_catalog.pg_class AS c
INNER JOIN pg_catalog.pg_namespace AS n ON c.relnamespace = n.oid
WHERE
    n.nspname = CAST(:schema_name AS text)
    AND c.relname = CAST(:table_name AS text)
    AND c.relkind IN ('r', 'p', 'v', 'm', 'f');
