-- The mapping in force with its time and user. Reads only; the primary key backwards, one row.
SELECT
    m.mapping_yaml,
    m.is_withdrawn,
    m.applied_at,
    m.applied_by
FROM loyalty.source_mapping AS m
ORDER BY m.mapping_id DESC
LIMIT 1;
