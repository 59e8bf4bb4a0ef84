-- Payments that name no subscription, and whose order none names: a renewal with an order of its own, in a shop that
-- links only the first one. They belong to the customer's subscription to that plan whose life their period reaches into;
-- live ones first, and the one that is in the period that is paid. Where a customer may have a plan several times, a
-- subscription that another order has just made is no other payment's. A payment never goes by an e-mail address. Reads the
-- few payments that are left.
UPDATE checked_payments AS p
SET
    subscription_key = chosen.subscription_key,
    subscription_id = chosen.subscription_id,
    link = 'plan',
    subscription_status = chosen.status,
    subscription_amount = chosen.amount,
    subscription_currency = chosen.currency,
    cancelled_at = chosen.cancelled_at,
    subscription_end_at = chosen.end_at
FROM (
    SELECT DISTINCT ON (c.merchant_id, c.payment_id)
        c.ctid AS row_id,
        s.subscription_key,
        s.subscription_id,
        s.status,
        s.amount,
        s.currency,
        s.cancelled_at,
        s.end_at
    FROM checked_payments AS c
    INNER JOIN checked_subscriptions AS s
        ON s.merchant_id = c.merchant_id AND s.customer_id = c.customer_id AND s.plan_id = c.plan_id
    LEFT JOIN checked_plans AS pl ON pl.merchant_id = c.merchant_id AND pl.plan_id = c.plan_id
    WHERE
        c.subscription_key IS NULL
        AND c.plan_id IS NOT NULL
        AND s.status <> 'incomplete'
        AND c.end_at > least(s.created_at, s.start_at)
        AND (
            s.is_kept
            OR c.start_at < coalesce(least(s.cancelled_at, s.end_at), s.cancelled_at, s.end_at, 'infinity')
        )
        AND NOT (
            coalesce(pl.allows_multiple, false)
            AND s.order_id IS NOT NULL
            AND s.created_at > c.start_at - coalesce(pl.lasts, interval '1 month') / 2
        )
    ORDER BY
        c.merchant_id,
        c.payment_id,
        s.is_live DESC,
        s.is_kept DESC,
        coalesce(c.start_at > s.start_at - interval '1 day' AND c.start_at < coalesce(s.end_at, 'infinity'), false) DESC,
        s.created_at,
        s.subscription_id
) AS chosen
WHERE p.ctid = chosen.row_id;
