-- Silences that hold now, or all, the newest first. Reads only.
SELECT
    s.silence_id,
    s.name,
    s.reason,
    s.actor,
    s.created_at,
    s.until_at,
    s.ended_at,
    s.ended_by
FROM loyalty.alert_silences AS s
WHERE (s.ended_at IS NULL AND s.until_at > now()) OR CAST(:is_all AS boolean)
ORDER BY s.silence_id DESC
LIMIT :row_limit;
