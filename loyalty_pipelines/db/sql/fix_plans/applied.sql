-- Plans that were applied, with the shop's rows before and after, and their objects to be compared again. Not repeated: an
-- applied plan is none that is applied. Indexes fix_plans_pkey, and the shop's own.
WITH applied AS (
    UPDATE loyalty.fix_plans AS p
    SET
        status = 'applied',
        applied_by = :actor,
        applied_at = now(),
        target_id = n.target_id,
        after = n.after,
        function = n.function,
        row_before = CAST(n.row_before AS jsonb),
        row_after = CASE
            WHEN p.action = 'refund_payment' THEN loyalty_source.payment_row(p.merchant_id, n.target_id)
            WHEN p.action IN ('create_subscription', 'update_subscription')
                THEN loyalty_source.subscription_row(p.merchant_id, n.target_id)
        END,
        failure = NULL,
        run_id = coalesce(CAST(:run_id AS text), p.run_id)
    FROM jsonb_to_recordset(CAST(:changes AS jsonb))
    AS n (plan_id bigint, target_id text, after jsonb, function text, row_before text)
    WHERE p.merchant_id = :merchant_id AND p.plan_id = n.plan_id
    RETURNING p.merchant_id, p.object_type, p.object_id, p.action, p.target_id
)

INSERT INTO loyalty.subscription_inbox (relation, merchant_id, object_id)
SELECT
    a.object_type || 's',
    a.merchant_id,
    a.object_id
FROM applied AS a
WHERE a.object_type IN ('order', 'payment', 'subscription')
UNION
SELECT
    'subscriptions',
    a.merchant_id,
    a.target_id
FROM applied AS a
WHERE a.action IN ('create_subscription', 'update_subscription') AND a.target_id IS NOT NULL;
