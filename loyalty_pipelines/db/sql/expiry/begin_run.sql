-- Opens a merchant's run, or goes on with one that did not get to its end: what it took before counts on, and is undone by
-- one id. A run of another night is not taken up. Safe to repeat; expiry_runs_by_time, expiry_runs_pkey.
WITH unfinished AS (
    SELECT r.run_id
    FROM loyalty.expiry_runs AS r
    WHERE
        r.merchant_id = :merchant_id
        AND r.finished_at IS NULL
        AND r.started_at > now() - interval '20 hours'
    ORDER BY r.started_at DESC
    LIMIT 1
)

INSERT INTO loyalty.expiry_runs AS r (merchant_id, run_id, as_of, actor)
VALUES (:merchant_id, coalesce((SELECT unfinished.run_id FROM unfinished), :run_id), :as_of, :actor)
ON CONFLICT (merchant_id, run_id) DO UPDATE SET as_of = excluded.as_of, finished_at = NULL
RETURNING r.run_id, r.accounts_expired, r.points_expired;
