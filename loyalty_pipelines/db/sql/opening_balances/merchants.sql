-- The merchants of the file in the order in which they are locked. Reads the stage.
SELECT DISTINCT l.merchant_id
FROM opening_lines AS l
ORDER BY l.merchant_id;
