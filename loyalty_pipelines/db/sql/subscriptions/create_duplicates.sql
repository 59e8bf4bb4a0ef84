-- Live subscriptions of customers who have several: with what each is paid, and until when. is_paid: it needs no payment, or
-- something was paid, or is on its way, for now. Gone at the end of the transaction. Reads those few customers' rows.
CREATE TEMPORARY TABLE several_subscriptions ON COMMIT DROP AS
SELECT
    s.*,
    coalesce(pl.allows_multiple, false) AS allows_multiple,
    coalesce(pl.lasts, interval '100 years') AS lasts,
    coalesce(s.amount, pl.amount, 0) AS price_amount,
    coalesce(s.currency, pl.currency) AS price_currency,
    coalesce(s.end_at, s.start_at + coalesce(pl.lasts, interval '100 years')) AS runs_until,
    s.is_complimentary OR s.status = 'trialing' OR coalesce(paid.payments > 0, false) AS is_paid,
    paid.captured_at
FROM checked_subscriptions AS s
INNER JOIN (
    -- By a hash, in half of the time; a few too many have no other one beside them.
    SELECT hashtextextended(t.customer_id, hashtextextended(t.merchant_id, 0)) AS customer_hash
    FROM checked_subscriptions AS t
    WHERE t.is_live AND t.customer_id IS NOT NULL
    GROUP BY hashtextextended(t.customer_id, hashtextextended(t.merchant_id, 0))
    HAVING count(*) > 1
) AS several ON several.customer_hash = hashtextextended(s.customer_id, hashtextextended(s.merchant_id, 0))
LEFT JOIN checked_plans AS pl ON pl.merchant_id = s.merchant_id AND pl.plan_id = s.plan_id
LEFT JOIN LATERAL (
    SELECT
        count(*) AS payments,
        max(p.captured_at) AS captured_at
    FROM checked_payments AS p
    WHERE
        p.merchant_id = s.merchant_id
        AND p.subscription_id = s.subscription_id
        -- Or it was paid so far and its renewal is tried, as long as subscription_without_payment waits for it.
        AND p.end_at + CASE WHEN s.status = 'past_due' THEN interval '14 days' ELSE interval '3 days' END
        > CAST(:as_of AS timestamptz)
        AND (
            (p.status IN ('captured', 'disputed') AND p.amount > p.refunded_amount)
            OR p.status IN ('pending', 'authorized', 'unknown', 'unrecognized')
        )
) AS paid ON true
WHERE s.is_live;
