-- Records that the newest mapping no longer has views with rows. Repeating it adds another such row.
INSERT INTO loyalty.source_mapping (mapping_yaml, is_withdrawn)
VALUES (:mapping_yaml, true);
