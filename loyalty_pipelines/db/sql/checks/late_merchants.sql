-- Merchants whose points expire and whose expiry has not succeeded within the last :hours hours: the newest run that got to
-- its end and was not stopped is older, or there is none. A run as of a past instant is none, it leaves what was due since.
-- A merchant without a programme until then is not late. Reads only; programs_pkey, expiry_runs_by_time.
WITH merchants AS MATERIALIZED (
    SELECT m.merchant_id
    FROM loyalty_source.merchants AS m
    INNER JOIN (
        SELECT p.merchant_id
        FROM loyalty.programs AS p
        GROUP BY p.merchant_id
        HAVING min(p.created_at) < now() - make_interval(hours => CAST(:hours AS integer))
    ) AS p ON p.merchant_id = m.merchant_id
    GROUP BY m.merchant_id
)

SELECT
    m.merchant_id,
    done.finished_at AS succeeded_at,
    coalesce(newest.is_stopped, false) AS is_stopped
FROM merchants AS m
CROSS JOIN LATERAL loyalty.merchant_terms(m.merchant_id) AS t
LEFT JOIN LATERAL (
    SELECT r.finished_at
    FROM loyalty.expiry_runs AS r
    WHERE
        r.merchant_id = m.merchant_id
        AND r.finished_at IS NOT NULL
        AND NOT r.is_stopped
        AND r.as_of > r.started_at - make_interval(hours => CAST(:hours AS integer))
    ORDER BY r.started_at DESC
    LIMIT 1
) AS done ON true
LEFT JOIN LATERAL (
    SELECT r.is_stopped
    FROM loyalty.expiry_runs AS r
    WHERE r.merchant_id = m.merchant_id
    ORDER BY r.started_at DESC
    LIMIT 1
) AS newest ON true
WHERE
    t.is_program_active
    AND t.points_expiration_days > 0
    AND coalesce(done.finished_at < now() - make_interval(hours => CAST(:hours AS integer)), true)
ORDER BY done.finished_at NULLS FIRST, m.merchant_id;
