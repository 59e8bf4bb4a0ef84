-- What waits in the queue, per merchant, the oldest first; points are what the items would earn and redeem. Reads the
-- open items only.
SELECT
    q.merchant_id,
    count(*) AS items,
    min(q.created_at) AS oldest_at,
    extract(EPOCH FROM now() - min(q.created_at)) AS oldest_seconds,
    coalesce(sum(coalesce(q.points_earned, 0) + coalesce(q.points_redeemed, 0)), 0) AS points_at_stake,
    count(q.parked_at) AS parked
FROM loyalty.reconciliation_queue AS q
WHERE q.resolved_at IS NULL
GROUP BY q.merchant_id
ORDER BY oldest_at, q.merchant_id;
