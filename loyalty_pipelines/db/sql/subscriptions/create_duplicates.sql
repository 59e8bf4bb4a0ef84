-- Live subscriptions of customers who have several: with what each is paid, and until when. is_paid: it needs no payment, or
-- something was paid, or is on its way, for now. Gone at the end of the transaction. Reads those few customers' rows.
CREATE TEMPORARY TABLE several_subscriptions ON COMMIT DROP AS
WITH running AS MATERIALIZED (
    SELECT s.*
    FROM checked_subscriptions AS s
    INNER JOIN (
        -- Of two customers with one hash none has another subscription beside it.
        SELECT t.customer_key
        FROM checked_subscriptions AS t
        WHERE t.is_live AND t.customer_key IS NOT NULL
        GROUP BY t.customer_key
        HAVING count(*) > 1
    ) AS several ON several.customer_key = s.customer_key
    WHERE s.is_live
),

-- One scan of the payments, however many customers have seats: for each subscription alone it would be a scan for each.
paid AS MATERIALIZED (
    SELECT
        s.merchant_id,
        s.subscription_id,
        count(*) AS payments,
        max(p.captured_at) AS captured_at
    FROM running AS s
    INNER JOIN checked_payments AS p ON p.merchant_id = s.merchant_id AND p.subscription_id = s.subscription_id
    WHERE
        -- Or it was paid so far and its renewal is tried, as long as subscription_without_payment waits for it.
        p.end_at + CASE WHEN s.status = 'past_due' THEN interval '14 days' ELSE interval '3 days' END
        > CAST(:as_of AS timestamptz)
        AND (
            (p.status IN ('captured', 'disputed') AND p.amount > p.refunded_amount)
            OR p.status IN ('pending', 'authorized', 'unknown', 'unrecognized')
        )
    GROUP BY s.merchant_id, s.subscription_id
)

SELECT
    s.*,
    coalesce(pl.allows_multiple, false) AS allows_multiple,
    coalesce(pl.lasts, interval '100 years') AS lasts,
    coalesce(s.amount, pl.amount, 0) AS price_amount,
    coalesce(s.currency, pl.currency) AS price_currency,
    coalesce(s.end_at, s.start_at + coalesce(pl.lasts, interval '100 years')) AS runs_until,
    s.is_complimentary OR s.status = 'trialing' OR coalesce(paid.payments > 0, false) AS is_paid,
    paid.captured_at
FROM running AS s
LEFT JOIN checked_plans AS pl ON pl.merchant_id = s.merchant_id AND pl.plan_id = s.plan_id
LEFT JOIN paid ON paid.merchant_id = s.merchant_id AND paid.subscription_id = s.subscription_id;
