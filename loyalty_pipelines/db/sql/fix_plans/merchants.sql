-- Merchants that something may be fixed for: with an open finding, or a plan. Only reads. Indexes findings_open,
-- fix_plans_waiting.
SELECT f.merchant_id
FROM loyalty.findings AS f
WHERE f.subject = :subject AND f.closed_at IS NULL AND f.accepted_at IS NULL
UNION
SELECT p.merchant_id
FROM loyalty.fix_plans AS p
WHERE p.status IN ('planned', 'approved')
ORDER BY merchant_id;
