-- The payments of subscriptions whose periods are no chain, each with what was paid before it. Gone at the end of the
-- transaction. Reads the payments of those few subscriptions.
CREATE TEMPORARY TABLE paid_steps ON COMMIT DROP AS
SELECT
    p.*,
    max(p.end_at) OVER earlier AS earlier_end_at,
    lag(p.start_at) OVER in_order AS previous_start_at,
    lag(p.end_at) OVER in_order AS previous_end_at,
    lag(p.payment_id) OVER in_order AS previous_payment_id,
    lag(p.amount - p.refunded_amount) OVER in_order AS previous_amount,
    lag(p.is_period_given) OVER in_order AS is_previous_given,
    lag(p.plan_id) OVER in_order AS previous_plan_id
FROM watched_payments AS p
INNER JOIN uncovered_subscriptions AS u
    ON u.merchant_id = p.merchant_id AND u.subscription_id = p.subscription_id AND u.is_broken
WHERE p.status = 'captured' AND p.amount > p.refunded_amount
WINDOW
    in_order AS (PARTITION BY p.merchant_id, p.subscription_id ORDER BY p.start_at, p.captured_at, p.payment_id),
    earlier AS (
        PARTITION BY p.merchant_id, p.subscription_id ORDER BY p.start_at, p.captured_at, p.payment_id
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    );
