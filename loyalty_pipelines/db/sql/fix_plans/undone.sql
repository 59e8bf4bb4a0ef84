-- A plan whose fix was taken back, and its objects to be compared again. Not repeated: only what is applied is undone.
WITH undone AS (
    UPDATE loyalty.fix_plans AS p
    SET
        status = 'undone',
        undone_by = :actor,
        undone_at = now()
    WHERE p.plan_id = :plan_id AND p.status = 'applied'
    RETURNING p.merchant_id, p.object_type, p.object_id, p.action, p.target_id
)

INSERT INTO loyalty.subscription_inbox (relation, merchant_id, object_id)
SELECT
    u.object_type || 's',
    u.merchant_id,
    u.object_id
FROM undone AS u
UNION
SELECT
    'subscriptions',
    u.merchant_id,
    u.target_id
FROM undone AS u
WHERE u.action IN ('create_subscription', 'update_subscription') AND u.target_id IS NOT NULL;
