-- Reads the mapping in force, or the one that was withdrawn last. Safe to repeat: it only reads.
-- Index: the primary key, backwards, one row.
SELECT
    m.mapping_yaml,
    m.is_withdrawn
FROM loyalty.source_mapping AS m
ORDER BY m.mapping_id DESC
LIMIT 1;
