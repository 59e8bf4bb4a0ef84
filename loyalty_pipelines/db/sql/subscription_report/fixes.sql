-- Fixes that were applied or undone within the last day, the newest first. Reads the plans of these merchants.
SELECT
    p.merchant_id,
    p.plan_id,
    p.class AS class_name,
    p.action,
    p.object_type,
    p.object_id,
    p.target_id,
    p.amount,
    p.currency,
    p.status,
    p.applied_at,
    p.applied_by,
    p.undone_at,
    p.undone_by
FROM loyalty.fix_plans AS p
WHERE
    p.status IN ('applied', 'undone')
    AND greatest(p.applied_at, p.undone_at) > now() - interval '1 day'
    AND (CAST(:merchant_id AS text) IS NULL OR p.merchant_id = CAST(:merchant_id AS text))
ORDER BY greatest(p.applied_at, p.undone_at) DESC, p.plan_id DESC
LIMIT CAST(:row_limit AS bigint);
