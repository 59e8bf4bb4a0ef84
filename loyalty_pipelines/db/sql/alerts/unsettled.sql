-- Problems of some sources that somebody may have to be told of, with the end of the latest silences over them; locked,
-- those that another sender has locked or leased are left to it. Repeating it finds what is left. Index
-- alert_problems_unsettled.
SELECT
    p.*,
    now() AS as_of,
    s.silenced_until,
    s.silenced_at
FROM loyalty.alert_problems AS p
LEFT JOIN LATERAL (
    SELECT
        max(a.until_at) AS silenced_until,
        max(a.created_at) AS silenced_at
    FROM loyalty.alert_silences AS a
    WHERE a.name = p.name AND a.ended_at IS NULL AND a.until_at > now()
) AS s ON true
WHERE
    (p.ended_at IS NULL OR (p.first_notified_at IS NOT NULL AND p.end_notified_at IS NULL))
    AND p.source = ANY(:sources)
    AND coalesce(p.leased_until <= now(), true)
ORDER BY p.problem_id
FOR NO KEY UPDATE OF p SKIP LOCKED;
