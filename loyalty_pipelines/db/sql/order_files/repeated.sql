-- Lines whose order is on an earlier line already, and how many there are. Reads the stage.
SELECT
    r.line,
    r.order_id,
    r.first_line,
    count(*) OVER () AS repeated
FROM (
    SELECT
        l.line,
        l.order_id,
        first_value(l.line) OVER (PARTITION BY l.order_id ORDER BY l.line) AS first_line
    FROM order_file_lines AS l
) AS r
WHERE r.line <> r.first_line
ORDER BY r.line
LIMIT :row_limit;
