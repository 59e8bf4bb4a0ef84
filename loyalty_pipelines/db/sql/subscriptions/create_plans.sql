-- The plans of these merchants, with the time that one payment lasts. A plan that the shop shows twice is none that can be
-- trusted: the first of them by price. Gone at the end of the transaction.
CREATE TEMPORARY TABLE checked_plans ON COMMIT DROP AS
SELECT DISTINCT ON (p.merchant_id, p.plan_id)
    p.merchant_id,
    p.plan_id,
    CASE WHEN p.amount BETWEEN 0 AND 1000000000000000 THEN p.amount END AS amount,
    p.currency,
    coalesce(loyalty.plan_interval(p.interval), interval '100 years') AS lasts,
    coalesce(p.allows_multiple, false) AS allows_multiple
FROM loyalty_source.plans AS p
INNER JOIN checked_merchants AS m ON m.merchant_id = p.merchant_id
ORDER BY p.merchant_id, p.plan_id, p.amount;
