-- Plans that were applied, with the shop's rows before and after, and their objects to be compared again. Not repeated: an
-- applied plan is none that is applied. Indexes fix_plans_pkey, and the shop's own.
WITH applied AS (
    UPDATE loyalty.fix_plans AS p
    SET
        status = 'applied',
        applied_by = :actor,
        applied_at = now(),
        target_id = n.target_id,
        after = CAST(n.after AS jsonb),
        function = n.function,
        row_before = CAST(n.row_before AS jsonb),
        row_after = CASE
            WHEN p.action = 'refund_payment' THEN loyalty_source.payment_row(p.merchant_id, n.target_id)
            WHEN p.action IN ('create_subscription', 'update_subscription')
                THEN loyalty_source.subscription_row(p.merchant_id, n.target_id)
        END,
        failure = NULL,
        run_id = coalesce(CAST(:run_id AS text), p.run_id)
    FROM unnest(
        CAST(:plan_ids AS bigint[]), CAST(:target_ids AS text[]), CAST(:afters AS text[]), CAST(:functions AS text[]),
        CAST(:rows_before AS text[])
    ) AS n (plan_id, target_id, after, function, row_before)
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
