-- Reads the functions that one name of the mapping may mean: those of the same name anywhere, and all of its schema.
-- Safe to repeat: it only reads. Index: pg_namespace_nspname_index and pg_proc_proname_args_nsp_index; once per action.
SELECT
    n.nspname::text AS schema_name,
    p.proname::text AS function_name,
    format(
        '%I.%I(%s) RETURNS %s',
        n.nspname,
        p.proname,
        pg_get_function_identity_arguments(p.oid),
        pg_get_function_result(p.oid)
    ) AS shown,
    p.prokind = 'f'
    AND NOT p.proretset
    AND p.prorettype = 'text'::regtype
    AND p.pronargs = 1
    AND p.proargtypes[0] = 'jsonb'::regtype AS fits,
    has_schema_privilege('loyalty_pipeline', n.oid, 'USAGE')
    AND has_function_privilege('loyalty_pipeline', p.oid, 'EXECUTE') AS is_allowed
FROM pg_catalog.pg_proc AS p
INNER JOIN pg_catalog.pg_namespace AS n ON p.pronamespace = n.oid
WHERE
    p.proname = CAST(:function_name AS text)
    OR (n.nspname = CAST(:schema_name AS text) AND n.nspname NOT IN ('pg_catalog', 'information_schema'))
ORDER BY n.nspname, p.proname, p.oid
LIMIT 5000;
