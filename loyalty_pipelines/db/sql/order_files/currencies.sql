-- The currencies of the file, the most frequent first. Reads the stage.
SELECT l.currency
FROM order_file_lines AS l
WHERE l.currency IS NOT NULL
GROUP BY l.currency
ORDER BY count(*) DESC, l.currency;
