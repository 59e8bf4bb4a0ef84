-- Live subscriptions of customers who have several: with what each is paid, and until when. is_paid: it needs no payment, or
-- something was paid, or is on its way, for now. guessed_payments: those of them that name no subscription, so that the
-- plan told which it is. Gone at the end of the transaction. Reads those few customers' rows.
CREATE TEMPORARY TABLE several_subscriptions ON COMMIT DROP AS
WITH
-- One scan of the payments, however many customers have seats: for each subscription alone it would be a scan for each.
paid AS MATERIALIZED (
    SELECT
        s.merchant_id,
        s.subscription_id,
        count(*) AS payments,
        count(*) FILTER (WHERE p.link = 'plan') AS guessed_payments,
        max(p.captured_at) AS captured_at
    FROM side_by_side AS s
    INNER JOIN watched_payments AS p ON p.merchant_id = s.merchant_id AND p.subscription_id = s.subscription_id
    WHERE
        -- Or it was paid so far and its renewal is tried, as long as subscription_without_payment waits for it.
        p.end_at + CASE WHEN s.status = 'past_due' THEN interval '14 days' ELSE interval '3 days' END
        > CAST(:as_of AS timestamptz)
        AND (
            (p.status IN ('captured', 'disputed') AND p.amount > p.refunded_amount)
            OR p.status IN ('pending', 'authorized', 'unknown', 'unrecognized')
        )
    GROUP BY s.merchant_id, s.subscription_id
),

-- First periods that a discount or points have paid for.
free AS MATERIALIZED (
    SELECT DISTINCT
        o.merchant_id,
        o.order_id
    FROM (
        SELECT
            array_agg(s.merchant_id) AS merchant_ids,
            array_agg(s.order_id) AS ids
        FROM side_by_side AS s
        WHERE s.order_id IS NOT NULL AND s.start_at <= s.created_at + interval '1 day'
    ) AS k
    CROSS JOIN LATERAL loyalty_source.orders_by_ids(k.merchant_ids, k.ids) AS o
    WHERE o.total_amount = 0 AND o.status = 'paid'
)

SELECT
    s.*,
    coalesce(pl.allows_multiple, false) AS allows_multiple,
    coalesce(pl.lasts, interval '100 years') AS lasts,
    coalesce(s.amount, pl.amount, 0) AS price_amount,
    coalesce(s.currency, pl.currency) AS price_currency,
    coalesce(s.end_at, s.start_at + coalesce(pl.lasts, interval '100 years')) AS runs_until,
    coalesce(paid.guessed_payments, 0) AS guessed_payments,
    s.is_complimentary
    OR s.status = 'trialing'
    OR coalesce(paid.payments > 0, false)
    OR coalesce(s.amount, pl.amount, 1) = 0
    OR (free.order_id IS NOT NULL AND s.start_at <= s.created_at + interval '1 day')
    -- A period that a fix gave for a payment whose own one was over.
    OR EXISTS (
        SELECT 1
        FROM loyalty.fix_plans AS f
        WHERE
            f.merchant_id = s.merchant_id
            AND f.target_id = s.subscription_id
            AND f.action = 'create_subscription'
            AND f.status = 'applied'
            AND f.applied_at > s.start_at - interval '1 day'
    ) AS is_paid,
    paid.captured_at
FROM side_by_side AS s
LEFT JOIN checked_plans AS pl ON pl.merchant_id = s.merchant_id AND pl.plan_id = s.plan_id
LEFT JOIN paid ON paid.merchant_id = s.merchant_id AND paid.subscription_id = s.subscription_id
LEFT JOIN free ON free.merchant_id = s.merchant_id AND free.order_id = s.order_id;
