-- The newest runs: of a merchant, or each with the sums over all of its merchants. Reads only; expiry_runs_by_time where
-- there is a merchant, else all runs, which are one row per night and merchant.
SELECT
    r.run_id,
    min(r.actor) AS actor,
    max(r.as_of) AS as_of,
    min(r.started_at) AS started_at,
    CASE WHEN bool_and(r.finished_at IS NOT NULL) THEN max(r.finished_at) END AS finished_at,
    count(*) AS merchants,
    count(*) FILTER (WHERE r.finished_at IS NULL) AS merchants_unfinished,
    count(*) FILTER (WHERE r.is_stopped) AS merchants_stopped,
    sum(r.accounts_warned) AS accounts_warned,
    sum(r.accounts_moved) AS accounts_moved,
    coalesce(sum(r.accounts_due), 0) AS accounts_due,
    sum(r.accounts_expired) AS accounts_expired,
    sum(r.points_expired) AS points_expired,
    sum(r.accounts_undone) AS accounts_undone,
    sum(r.points_undone) AS points_undone
FROM loyalty.expiry_runs AS r
WHERE CAST(:merchant_id AS text) IS NULL OR r.merchant_id = CAST(:merchant_id AS text) COLLATE "C"
GROUP BY r.run_id
ORDER BY started_at DESC, r.run_id
LIMIT :row_limit;
