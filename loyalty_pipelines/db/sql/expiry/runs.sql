-- Merchants' runs as they are now, and what the finished run before each had forecast for it. Reads only; expiry_runs_pkey,
-- expiry_runs_by_time.
SELECT
    r.*,
    before.accounts_forecast AS forecast_accounts_before,
    before.points_forecast AS forecast_points_before
FROM loyalty.expiry_runs AS r
LEFT JOIN LATERAL (
    SELECT
        p.accounts_forecast,
        p.points_forecast
    FROM loyalty.expiry_runs AS p
    WHERE
        p.merchant_id = r.merchant_id
        AND p.started_at < r.started_at
        AND p.finished_at IS NOT NULL
        AND p.as_of BETWEEN r.as_of - interval '26 hours' AND r.as_of - interval '22 hours'
    ORDER BY p.started_at DESC
    LIMIT 1
) AS before ON true
WHERE r.merchant_id = ANY(CAST(:merchant_ids AS text[])) AND r.run_id = :run_id
ORDER BY r.merchant_id;
