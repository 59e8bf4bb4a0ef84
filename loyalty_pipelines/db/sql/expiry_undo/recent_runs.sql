-- The newest runs that took something, for whoever mistyped an id. Reads only.
SELECT r.run_id
FROM loyalty.expiry_runs AS r
WHERE r.accounts_expired > 0
GROUP BY r.run_id
ORDER BY max(r.started_at) DESC
LIMIT 3;
