-- The open problem of a name. Reads only. Index alert_problems_open.
SELECT p.*
FROM loyalty.alert_problems AS p
WHERE p.name = :name AND p.ended_at IS NULL;
