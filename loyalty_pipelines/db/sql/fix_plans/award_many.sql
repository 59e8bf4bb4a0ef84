-- Has the award engine look at the orders of plans; it decides, and awards once. Repeating it has them looked at again.
INSERT INTO loyalty.order_inbox (merchant_id, customer_id, order_id, source)
SELECT
    p.merchant_id,
    coalesce(p.evidence ->> 'customer_id', ''),
    p.object_id,
    'fix'
FROM loyalty.fix_plans AS p
WHERE p.merchant_id = :merchant_id AND p.plan_id = ANY(CAST(:plan_ids AS bigint[]))
ORDER BY p.plan_id;
