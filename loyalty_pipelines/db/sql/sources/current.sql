-- Reads the mapping in force. Safe to repeat: it only reads. Index: the primary key, backwards, one row.
SELECT m.mapping_yaml
FROM loyalty.source_mapping AS m
ORDER BY m.mapping_id DESC
LIMIT 1;
