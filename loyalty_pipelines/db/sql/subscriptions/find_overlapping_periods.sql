-- Two paid periods of one subscription overlap, by less than makes them the same one. Only periods that the shop gives:
-- those that were derived from the time of a capture overlap whenever a renewal is early.
INSERT INTO suspected (
    merchant_id, class, object_type, object_id, policy, amount_at_risk, currency, evidence, ripe_at
)
SELECT
    p.merchant_id,
    'overlapping_periods',
    'payment',
    p.payment_id,
    'H',
    round(
        (p.amount - p.refunded_amount)
        * CAST(
            date_part('epoch', overlap.lasts) / greatest(date_part('epoch', p.end_at - p.start_at), 1) AS numeric
        ),
        2
    ),
    p.currency,
    jsonb_strip_nulls(jsonb_build_object(
        'payment_id', p.payment_id, 'other_payment_id', p.previous_payment_id, 'subscription_id', p.subscription_id,
        'customer_id', p.customer_id, 'period_start', p.start_at, 'period_end', p.end_at,
        'other_period_start', p.previous_start_at, 'other_period_end', p.previous_end_at
    )),
    p.captured_at + greatest(interval '1 hour', m.grace)
FROM paid_steps AS p
INNER JOIN checked_merchants AS m ON m.merchant_id = p.merchant_id
CROSS JOIN LATERAL (SELECT least(p.earlier_end_at, p.end_at) - p.start_at AS lasts) AS overlap
WHERE
    overlap.lasts > interval '1 day'
    AND overlap.lasts < (p.end_at - p.start_at) / 2
    AND p.is_period_given
    AND p.is_previous_given
    AND p.plan_id IS NOT DISTINCT FROM p.previous_plan_id;
