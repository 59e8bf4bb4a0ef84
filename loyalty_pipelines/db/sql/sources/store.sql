-- Records the mapping that was applied. Repeating it adds another row with the same text, and the newest row
-- is the one in force, so a repetition changes nothing. Index: the primary key takes the new row.
INSERT INTO loyalty.source_mapping (mapping_yaml)
VALUES (:mapping_yaml)
RETURNING applied_at;
