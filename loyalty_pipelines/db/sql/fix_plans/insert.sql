-- Keeps plans; where there is one for the same finding already, that one stays. Safe to repeat. Index fix_plans_once.
INSERT INTO loyalty.fix_plans (
    merchant_id, fix_key, finding_id, class, object_type, object_id, policy, action, target_id, before, after, inverse,
    evidence, amount, currency, explanation, planned_by, expires_at, run_id
)
SELECT
    n.merchant_id,
    n.fix_key,
    n.finding_id,
    n.class,
    n.object_type,
    n.object_id,
    n.policy,
    n.action,
    n.target_id,
    n.before,
    n.after,
    nullif(n.inverse, 'null'),
    CAST(n.evidence AS jsonb),
    n.amount,
    n.currency,
    n.explanation,
    :actor,
    now() + CAST(:valid_for AS interval),
    :run_id
FROM jsonb_to_recordset(CAST(:plans AS jsonb)) AS n (
    merchant_id text, fix_key text, finding_id bigint, class text, object_type text, object_id text, policy text,
    action text, target_id text, before jsonb, after jsonb, inverse jsonb, evidence text, amount numeric, currency text,
    explanation text
)
ORDER BY n.merchant_id COLLATE "C", n.fix_key COLLATE "C"
ON CONFLICT (merchant_id, fix_key) WHERE status IN ('planned', 'approved', 'applied', 'failed') DO NOTHING
RETURNING plan_id;
