-- Open items of the reconciliation queue by reason. Reads only.
SELECT
    q.reason,
    count(*) AS items,
    count(DISTINCT q.merchant_id) AS merchants,
    min(q.created_at) AS oldest_at
FROM loyalty.reconciliation_queue AS q
WHERE q.resolved_at IS NULL
GROUP BY q.reason
ORDER BY count(*) DESC, q.reason;
