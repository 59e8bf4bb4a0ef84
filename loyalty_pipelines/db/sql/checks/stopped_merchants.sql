-- Merchants whose plan was stopped by a run that no later run has overtaken: none that got to its end without a stop. With
-- the newest stopped plan, and since when. A merchant that the shop no longer lists is of no account. Reads only;
-- expiry_runs_by_time.
WITH stopped AS (
    SELECT
        r.*,
        row_number() OVER (PARTITION BY r.merchant_id ORDER BY r.started_at DESC) AS place,
        min(r.started_at) OVER (PARTITION BY r.merchant_id) AS stopped_at
    FROM loyalty.expiry_runs AS r
    WHERE
        r.is_stopped
        AND NOT EXISTS (
            SELECT 1
            FROM loyalty.expiry_runs AS later
            WHERE
                later.merchant_id = r.merchant_id
                AND later.started_at > r.started_at
                AND later.finished_at IS NOT NULL
                AND NOT later.is_stopped
        )
)

SELECT
    s.merchant_id,
    s.run_id,
    s.stopped_at,
    s.accounts_with_points,
    s.accounts_due,
    s.points_due,
    s.accounts_waiting,
    s.nights_compared,
    s.accounts_usual,
    s.accounts_limit
FROM stopped AS s
WHERE
    s.place = 1
    AND s.merchant_id IN (SELECT m.merchant_id FROM loyalty_source.merchants AS m)
ORDER BY s.accounts_due DESC, s.merchant_id;
