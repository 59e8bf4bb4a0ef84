-- How many plans of a merchant wait for a person. Only reads. Index fix_plans_waiting.
SELECT count(*)
FROM loyalty.fix_plans AS p
WHERE p.merchant_id = :merchant_id AND p.status = 'planned' AND p.policy = 'P' AND p.expires_at > now();
