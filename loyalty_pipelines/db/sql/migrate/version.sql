-- The schema version of the database. Reads only.
SELECT v.version_num
FROM loyalty.schema_version AS v;
