-- Live twice for one plan that a customer may have once. Automatic where one is paid and others are not: those end.
-- One that begins when the other one ends is its next period. Where payments were told by the plan, and are more than
-- the paid ones, nobody knows which one is unpaid.
INSERT INTO suspected (
    merchant_id, class, object_type, object_id, policy, amount_at_risk, currency, evidence, ripe_at
)
SELECT
    g.merchant_id,
    'duplicate_same_plan',
    'subscription',
    ends.subscription_id,
    CASE WHEN g.is_clear THEN 'A' ELSE 'H' END,
    g.price_amount,
    g.price_currency,
    jsonb_strip_nulls(jsonb_build_object(
        'subscription_id', ends.subscription_id, 'customer_id', g.customer_id,
        'plan_id', g.plan_id, 'subscription_ids', g.subscription_ids, 'unpaid', g.unpaid
    )),
    g.created_at + greatest(interval '15 minutes', m.grace)
FROM (
    SELECT
        d.merchant_id,
        d.customer_id,
        d.plan_id,
        count(*) FILTER (WHERE NOT d.is_paid) AS unpaid,
        count(*) FILTER (WHERE NOT d.is_paid) BETWEEN 1 AND count(*) - 1
        AND sum(d.guessed_payments) <= count(*) FILTER (WHERE d.is_paid) AS is_clear,
        array_agg(d.subscription_id) FILTER (WHERE NOT d.is_paid) AS unpaid_ids,
        (array_agg(d.subscription_id ORDER BY d.created_at DESC, d.subscription_id DESC))[1] AS newest_id,
        jsonb_agg(d.subscription_id ORDER BY d.created_at, d.subscription_id) AS subscription_ids,
        max(d.price_amount) AS price_amount,
        max(d.price_currency) AS price_currency,
        max(d.created_at) AS created_at
    FROM (
        SELECT
            s.*,
            max(s.runs_until) OVER earlier AS earlier_until,
            lead(s.start_at) OVER in_order AS next_start_at
        FROM several_subscriptions AS s
        WHERE NOT s.allows_multiple AND s.plan_id IS NOT NULL
        WINDOW
            in_order AS (
                PARTITION BY s.merchant_id, s.customer_id, s.plan_id ORDER BY s.start_at, s.created_at, s.subscription_id
            ),
            earlier AS (
                PARTITION BY s.merchant_id, s.customer_id, s.plan_id ORDER BY s.start_at, s.created_at, s.subscription_id
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            )
    ) AS d
    -- Those that run beside another one.
    WHERE d.start_at < d.earlier_until - interval '1 day' OR d.next_start_at < d.runs_until - interval '1 day'
    GROUP BY d.merchant_id, d.customer_id, d.plan_id
    HAVING count(*) > 1
) AS g
INNER JOIN checked_merchants AS m ON m.merchant_id = g.merchant_id
CROSS JOIN LATERAL unnest(
    CASE WHEN g.is_clear THEN g.unpaid_ids ELSE ARRAY[g.newest_id] END
) AS ends (subscription_id);
