-- Reads what the current user may do where the views and triggers will lie. Safe to repeat: it only reads.
-- Indexes: pg_namespace_nspname_index, pg_class_relname_nsp_index, pg_authid_rolname_index.
SELECT
    current_user::text AS user_name,
    u.rolsuper AS is_superuser,
    s.oid IS NOT NULL AS has_schema,
    coalesce(has_schema_privilege(s.oid, 'CREATE'), false) AS can_create,
    i.oid IS NOT NULL AND m.oid IS NOT NULL AS has_tables,
    coalesce(
        has_schema_privilege(l.oid, 'USAGE')
        AND has_table_privilege(m.oid, 'INSERT')
        AND has_table_privilege(m.oid, 'SELECT'),
        false
    ) AS can_record,
    c.oid IS NOT NULL AS has_capture_role,
    coalesce(pg_has_role(c.oid, 'USAGE'), false) AS is_capture_member,
    coalesce(
        pg_has_role(c.oid, 'USAGE WITH ADMIN OPTION')
        OR (u.rolcreaterole AND current_setting('server_version_num')::integer < 160000),
        false
    ) AS can_join_capture,
    coalesce(
        (
            SELECT string_agg(DISTINCT pg_get_userbyid(v.relowner)::text, ', ')
            FROM pg_catalog.pg_class AS v
            WHERE
                v.relnamespace = s.oid
                AND v.relkind = 'v'
                AND NOT pg_has_role(v.relowner, 'USAGE')
        ),
        ''
    ) AS other_owners
FROM pg_catalog.pg_roles AS u
LEFT JOIN pg_catalog.pg_namespace AS s ON s.nspname = 'loyalty_source'
LEFT JOIN pg_catalog.pg_namespace AS l ON l.nspname = 'loyalty'
LEFT JOIN pg_catalog.pg_class AS i ON l.oid = i.relnamespace AND i.relname = 'order_inbox'
LEFT JOIN pg_catalog.pg_class AS m ON l.oid = m.relnamespace AND m.relname = 'source_mapping'
LEFT JOIN pg_catalog.pg_roles AS c ON c.rolname = 'loyalty_capture'
WHERE u.rolname = current_user;
