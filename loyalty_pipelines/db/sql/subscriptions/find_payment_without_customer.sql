-- Money was taken for a plan, and nobody knows from whom: neither payment, order nor subscription name a customer, or
-- they name one that the shop does not have. A guest's order of goods needs none.
INSERT INTO suspected (
    merchant_id, class, object_type, object_id, policy, amount_at_risk, currency, evidence, ripe_at
)
SELECT
    p.merchant_id,
    'payment_without_customer',
    'payment',
    p.payment_id,
    'H',
    p.amount - p.refunded_amount,
    p.currency,
    jsonb_strip_nulls(jsonb_build_object(
        'payment_id', p.payment_id, 'order_id', p.order_id, 'subscription_id', p.subscription_id,
        'customer_id', p.customer_id, 'plan_id', p.plan_id, 'amount', p.amount, 'captured_at', p.captured_at
    )),
    p.captured_at + greatest(interval '1 hour', m.grace)
FROM (
    SELECT c.*
    FROM odd_payments AS c
    WHERE c.customer_id IS NULL
    UNION ALL
    -- By itself, and not in an OR: there it would be asked for each payment.
    SELECT c.*
    FROM odd_payments AS c
    WHERE
        CAST(:has_customers AS boolean)
        AND c.customer_id IS NOT NULL
        AND NOT EXISTS (
            SELECT 1
            FROM loyalty_source.customers AS cu
            WHERE cu.merchant_id = c.merchant_id AND cu.customer_id = c.customer_id
        )
    UNION ALL
    SELECT c.*
    FROM checked_payments AS c
    INNER JOIN unknown_customers AS u ON u.merchant_id = c.merchant_id AND u.customer_id = c.customer_id
    WHERE c.is_plain
) AS p
INNER JOIN checked_merchants AS m ON m.merchant_id = p.merchant_id
WHERE p.status IN ('captured', 'disputed') AND p.amount > p.refunded_amount AND p.plan_id IS NOT NULL;
