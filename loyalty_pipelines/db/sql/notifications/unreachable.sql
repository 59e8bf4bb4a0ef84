-- The merchants of whose mails of the last :hours hours at least :few, and more than :max_percent, were parked, with the
-- most frequent reason. Not counted is what an operator parked, nor what was void. Reads only; index
-- notifications_settled.
WITH mails AS (
    SELECT
        n.merchant_id,
        n.status = 'parked' AS is_parked,
        left(n.last_error, 100) AS reason
    FROM loyalty.notifications AS n
    WHERE
        n.settled_at > now() - make_interval(hours => CAST(:hours AS integer))
        AND n.status IN ('sent', 'failed', 'parked')
        AND (n.last_error IS NULL OR n.last_error NOT LIKE 'by hand: %')
)

SELECT
    m.merchant_id,
    count(*) AS mails,
    count(*) FILTER (WHERE m.is_parked) AS parked,
    coalesce(mode() WITHIN GROUP (ORDER BY m.reason) FILTER (WHERE m.is_parked), '') AS reason
FROM mails AS m
GROUP BY m.merchant_id
HAVING
    count(*) FILTER (WHERE m.is_parked) >= CAST(:few AS integer)
    AND 100.0 * count(*) FILTER (WHERE m.is_parked) > CAST(:max_percent AS double precision) * count(*)
ORDER BY parked DESC, m.merchant_id;
