-- Problems for people, the newest first: the open ones, or all. Reads only; alert_problems_open or the whole table.
SELECT p.*
FROM loyalty.alert_problems AS p
WHERE p.ended_at IS NULL OR CAST(:is_all AS boolean)
ORDER BY p.ended_at IS NOT NULL, p.started_at DESC, p.problem_id DESC
LIMIT :row_limit;
