-- The payments that a class may have something to say about: for a plan, without an order, or not settled. Each with its
-- subscription, as the shop links them: by the subscription's id, or by the order that made it; where several are of one
-- order, with each of them. The period that it pays for is the shop's, or one interval of the plan from the capture on.
-- is_plain: captured, kept, at the price of the plan and in its currency, of the customer of a subscription that is kept
-- or was not yet cancelled: what classes say about a single payment, none of them says about it, so that it comes without
-- the columns that they read. subscription_key: a hash of the subscription, which is grouped and joined in half of the
-- time. Gone at the end of the transaction. Reads the shop's payments, orders and subscriptions once, in parallel: no
-- temporary table may be among them, therefore. Columns of fixed length come first: most scans read no others.
CREATE TEMPORARY TABLE checked_payments ON COMMIT DROP AS
SELECT
    hashtextextended(q.subscription_id, hashtextextended(q.merchant_id, 0)) AS subscription_key,
    q.is_plain,
    q.start_at,
    least(
        greatest(
            coalesce(q.period_end, q.start_at + coalesce(loyalty.plan_interval(q.plan_interval), interval '100 years')),
            timestamptz '1900-01-01 00:00+00'
        ),
        timestamptz '3200-01-01 00:00+00'
    ) AS end_at,
    -- No time, an infinite one and one of the Stone Age: calculating with those is refused for everybody.
    least(greatest(q.captured_at, timestamptz '1900-01-01 00:00+00'), timestamptz '3000-01-01 00:00+00') AS captured_at,
    CASE
        WHEN NOT q.is_plain
            THEN least(greatest(q.created_at, timestamptz '1900-01-01 00:00+00'), timestamptz '3000-01-01 00:00+00')
    END AS created_at,
    -- When a refund or a dispute came, where the shop says so: grace is counted from it.
    CASE
        WHEN NOT q.is_plain
            THEN least(greatest(q.changed_at, timestamptz '1900-01-01 00:00+00'), timestamptz '3000-01-01 00:00+00')
    END AS changed_at,
    q.status IN ('captured', 'disputed', 'refunded') AS is_taken,
    q.is_period_given,
    q.is_order_known,
    q.is_order_agreed,
    q.status,
    -- Not a number, and too large for one: a contract of the shop's data tells of those.
    CASE WHEN q.is_plain OR q.amount BETWEEN 0 AND 1000000000000000 THEN q.amount ELSE 0 END AS amount,
    CASE
        WHEN q.is_plain THEN 0
        WHEN q.status = 'refunded' THEN CASE WHEN q.amount BETWEEN 0 AND 1000000000000000 THEN q.amount ELSE 0 END
        WHEN q.refunded_amount BETWEEN 0 AND 1000000000000000 THEN q.refunded_amount
        ELSE 0
    END AS refunded_amount,
    q.merchant_id,
    q.payment_id,
    q.subscription_id,
    q.order_id,
    q.customer_id,
    q.currency,
    q.plan_id,
    q.plan_amount,
    q.subscription_amount,
    q.link,
    CASE WHEN NOT q.is_plain THEN q.named_subscription_id END AS named_subscription_id,
    CASE WHEN NOT q.is_plain THEN q.source_status END AS source_status,
    CASE WHEN NOT q.is_plain THEN q.plan_currency END AS plan_currency,
    CASE WHEN NOT q.is_plain THEN q.subscription_status END AS subscription_status,
    CASE WHEN NOT q.is_plain THEN q.subscription_currency END AS subscription_currency,
    CASE WHEN NOT q.is_plain THEN q.cancelled_at END AS cancelled_at,
    CASE WHEN NOT q.is_plain THEN q.subscription_end_at END AS subscription_end_at,
    CASE WHEN NOT q.is_plain THEN q.order_amount END AS order_amount,
    CASE WHEN NOT q.is_plain THEN q.discount_amount END AS discount_amount,
    CASE WHEN NOT q.is_plain THEN q.points_redeemed END AS points_redeemed,
    CASE WHEN NOT q.is_plain THEN q.points_discount_amount END AS points_discount_amount
FROM (
    SELECT
        r.*,
        coalesce(
            -- Their amounts come later.
            NOT CAST(:are_refunds_apart AS boolean)
            AND r.status = 'captured'
            AND r.amount = r.plan_amount
            AND r.amount > 0
            AND r.is_own_customer
            AND r.refunded_amount = 0
            AND r.currency = r.plan_currency
            AND coalesce(r.subscription_currency, r.currency) = r.currency
            AND coalesce(r.discount_amount, 0) = 0
            AND coalesce(r.points_redeemed, 0) = 0
            AND r.points_discount_amount IS NULL
            AND (
                r.subscription_status IN ('trialing', 'active', 'past_due', 'paused')
                OR (r.subscription_status IN ('cancelled', 'expired') AND r.start_at <= r.cancelled_at)
            ),
            false
        ) AS is_plain,
        -- Keeps the planner from copying these expressions into each place that uses them, and workers may evaluate it.
        clock_timestamp() AS looked_at
    FROM (
        SELECT
            p.merchant_id,
            p.payment_id,
            p.order_id,
            p.subscription_id AS named_subscription_id,
            p.status,
            p.source_status,
            p.amount,
            p.refunded_amount,
            p.currency,
            p.period_end,
            p.period_start IS NOT NULL AND p.period_end IS NOT NULL AS is_period_given,
            coalesce(p.captured_at, o.paid_at, p.created_at, p.updated_at, o.updated_at) AS captured_at,
            coalesce(p.created_at, p.captured_at, p.updated_at, o.updated_at) AS created_at,
            coalesce(p.updated_at, p.captured_at, p.created_at) AS changed_at,
            least(
                greatest(
                    coalesce(p.period_start, p.captured_at, o.paid_at, p.created_at, p.updated_at, o.updated_at),
                    timestamptz '1900-01-01 00:00+00'
                ),
                timestamptz '3000-01-01 00:00+00'
            ) AS start_at,
            coalesce(p.customer_id, o.customer_id, d.customer_id, b.customer_id) AS customer_id,
            -- Whether the subscription's customer is a known one is looked at once, not with each of its payments.
            coalesce(p.customer_id, o.customer_id, d.customer_id, b.customer_id)
            = coalesce(d.customer_id, b.customer_id) AS is_own_customer,
            coalesce(p.plan_id, o.plan_id, d.plan_id, b.plan_id) AS plan_id,
            pl.amount AS plan_amount,
            pl.currency AS plan_currency,
            pl.interval AS plan_interval,
            coalesce(d.subscription_id, b.subscription_id) AS subscription_id,
            CASE
                WHEN d.subscription_id IS NOT NULL THEN 'subscription'
                WHEN b.subscription_id IS NOT NULL THEN 'order'
            END AS link,
            coalesce(d.status, b.status) AS subscription_status,
            coalesce(d.amount, b.amount) AS subscription_amount,
            coalesce(d.currency, b.currency) AS subscription_currency,
            coalesce(d.cancelled_at, b.cancelled_at) AS cancelled_at,
            coalesce(d.current_period_end, b.current_period_end) AS subscription_end_at,
            o.order_id IS NOT NULL AS is_order_known,
            -- The order is in force, names nobody and nothing else, and no subscription is named that is not shown.
            coalesce(
                o.status IN ('pending', 'paid', 'partially_refunded')
                AND coalesce(p.customer_id = o.customer_id, true)
                AND coalesce(p.plan_id = o.plan_id, true)
                AND (p.subscription_id IS NULL OR d.subscription_id IS NOT NULL),
                false
            ) AS is_order_agreed,
            o.total_amount AS order_amount,
            o.discount_amount,
            o.points_redeemed,
            o.points_discount_amount,
            clock_timestamp() AS joined_at
        FROM source_payments AS p
        LEFT JOIN source_orders AS o ON o.merchant_id = p.merchant_id AND o.order_id = p.order_id
        LEFT JOIN source_subscriptions AS d ON d.merchant_id = p.merchant_id AND d.subscription_id = p.subscription_id
        LEFT JOIN source_subscriptions AS b
            ON b.merchant_id = p.merchant_id AND b.order_id = p.order_id AND d.subscription_id IS NULL
        LEFT JOIN loyalty_source.plans AS pl
            ON pl.merchant_id = p.merchant_id AND pl.plan_id = coalesce(p.plan_id, o.plan_id, d.plan_id, b.plan_id)
        WHERE
            p.subscription_id IS NOT NULL
            OR b.subscription_id IS NOT NULL
            OR p.plan_id IS NOT NULL
            OR o.plan_id IS NOT NULL
            OR o.order_id IS NULL
            OR p.status IN ('pending', 'unknown', 'unrecognized')
    ) AS r
) AS q;
