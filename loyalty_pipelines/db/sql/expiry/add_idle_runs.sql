-- The runs of all merchants for whom nothing is to be done, finished at once: the check that asks when a merchant's expiry
-- last succeeded reads them. The forecast reads what will be due a day later. Safe to repeat: a run that was killed
-- between its last page and its end is finished by it; accounts_expiring.
INSERT INTO loyalty.expiry_runs AS r (
    merchant_id, run_id, as_of, actor, finished_at, accounts_due, points_due, accounts_waiting, accounts_forecast,
    points_forecast
)
SELECT
    m.merchant_id,
    :run_id,
    :as_of,
    :actor,
    now(),
    0,
    0,
    0,
    tomorrow.accounts,
    tomorrow.points
FROM unnest(CAST(:merchant_ids AS text[]), CAST(:are_expiring AS boolean[])) AS m (merchant_id, is_expiring)
CROSS JOIN LATERAL (
    SELECT
        count(*) AS accounts,
        coalesce(sum(a.balance - a.held), 0) AS points
    FROM loyalty.expiring_accounts AS a
    WHERE
        m.is_expiring
        AND a.merchant_id = m.merchant_id
        AND a.expires_at > CAST(:as_of AS timestamptz)
        AND a.expires_at <= CAST(:as_of AS timestamptz) + interval '1 day'
        AND a.has_free_points
) AS tomorrow
ON CONFLICT (merchant_id, run_id) DO UPDATE SET
    finished_at = excluded.finished_at,
    accounts_forecast = excluded.accounts_forecast,
    points_forecast = excluded.points_forecast
WHERE r.finished_at IS NULL;
