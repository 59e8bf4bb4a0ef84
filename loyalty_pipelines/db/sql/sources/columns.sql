-- Reads the columns of one relation with their base types (domains resolved). Safe to repeat: it only reads.
-- Index: pg_attribute_relid_attnum_index.
WITH RECURSIVE bases AS (
    SELECT
        a.attnum,
        a.atttypid AS type_oid
    FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = CAST(CAST(:relation_oid AS bigint) AS oid) AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT
        b.attnum,
        t.typbasetype AS type_oid
    FROM bases AS b
    INNER JOIN pg_catalog.pg_type AS t ON b.type_oid = t.oid AND t.typtype = 'd'
)

SELECT
    a.attname::text AS name,
    format_type(a.atttypid, a.atttypmod) AS shown_type,
    CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN t.typname::text ELSE '' END AS base_type,
    t.typtype = 'e' AS is_enum,
    a.attnotnull AS is_not_null,
    a.atthasdef OR a.attidentity <> '' OR own.typdefault IS NOT NULL AS has_default,
    a.attgenerated <> '' OR a.attidentity = 'a' AS is_generated,
    q.relname::text AS sequence_name,
    qn.nspname::text AS sequence_schema,
    coalesce(
        has_sequence_privilege('loyalty_pipeline', q.oid, 'USAGE') OR pg_has_role(q.relowner, 'USAGE'), true
    ) AS can_share_sequence,
    l.collname::text AS collation_name,
    ln.nspname::text AS collation_schema,
    coalesce(l.collisdeterministic, true) AS is_deterministic
FROM bases AS b
INNER JOIN pg_catalog.pg_type AS t ON b.type_oid = t.oid AND t.typtype <> 'd'
INNER JOIN pg_catalog.pg_attribute AS a
    ON a.attrelid = CAST(CAST(:relation_oid AS bigint) AS oid) AND b.attnum = a.attnum
INNER JOIN pg_catalog.pg_type AS own ON a.atttypid = own.oid
-- A serial column's sequence. Whoever inserts needs a right on it; on an identity column's nobody does.
LEFT JOIN pg_catalog.pg_depend AS d
    ON
        d.classid = 'pg_catalog.pg_class'::regclass
        AND d.refclassid = 'pg_catalog.pg_class'::regclass
        AND a.attrelid = d.refobjid
        AND a.attnum = d.refobjsubid
        AND d.deptype = 'a'
        AND EXISTS (SELECT 1 FROM pg_catalog.pg_class AS s WHERE s.oid = d.objid AND s.relkind = 'S')
LEFT JOIN pg_catalog.pg_class AS q ON d.objid = q.oid
LEFT JOIN pg_catalog.pg_namespace AS qn ON q.relnamespace = qn.oid
LEFT JOIN pg_catalog.pg_collation AS l ON a.attcollation = l.oid
LEFT JOIN pg_catalog.pg_namespace AS ln ON l.collnamespace = ln.oid
ORDER BY a.attnum;
