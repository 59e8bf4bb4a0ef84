-- Schema, mapping, oldest snapshot: one row. Reads only; source_mapping_pkey backwards, and PostgreSQL's own sessions.
SELECT i.*
FROM loyalty.metrics_installation AS i;
