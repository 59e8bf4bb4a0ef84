-- Whether anything was ever installed here. Reads only.
SELECT to_regclass('loyalty.schema_version') IS NOT NULL AS is_there;
