-- What the shop shows now of some orders, what each deserves of an account by it, and what the ledger has. One look-up by
-- key for each, so that no other order of the shop is evaluated. Reads only; the shop's own key, order_points_pkey.
SELECT
    w.order_id,
    coalesce(o.shown, 0) AS shown,
    o.customer_id,
    holder.customer_id AS holder_customer_id,
    o.status,
    o.paid_at,
    o.currency,
    o.total_amount,
    refunds.amount AS refunded_amount,
    o.points_redeemed,
    o.points_redeemed * applied.point_value_amount AS redeemed_amount,
    basis.net_amount,
    v.outcome,
    v.detail,
    op.program_version,
    CASE
        WHEN v.outcome = 'earning' THEN loyalty.points_for(
            basis.net_amount, applied.points_per_unit, applied.unit_amount, applied.multiplier, applied.rounding
        )
    END AS rule_points,
    p.version AS version_now,
    deserved.points AS deserved_points,
    coalesce(op.target_points, 0) AS target_points,
    coalesce(op.in_force_points, 0) AS in_force_points,
    coalesce(op.waived_points, 0) AS waived_points,
    (
        coalesce(o.shown, 0) = 1
        AND v.outcome IN ('earning', 'unpaid', 'no_programme')
        AND deserved.points <> coalesce(op.target_points, 0)
    ) AS is_different
FROM unnest(CAST(:order_ids AS text[])) WITH ORDINALITY AS w (order_id, position)
INNER JOIN loyalty.accounts AS a ON a.merchant_id = :merchant_id AND a.account_id = :account_id
LEFT JOIN loyalty_source.merchants AS m ON m.merchant_id = :merchant_id
LEFT JOIN loyalty.order_points AS op
    ON op.merchant_id = :merchant_id AND op.order_id = w.order_id AND op.account_id = a.account_id
LEFT JOIN loyalty.programs AS applied ON applied.merchant_id = :merchant_id AND applied.version = op.program_version
LEFT JOIN LATERAL (
    SELECT
        found.*,
        count(*) OVER () AS shown
    FROM loyalty_source.order_by_id(:merchant_id, w.order_id) AS found
    LIMIT 1
) AS o ON true
LEFT JOIN LATERAL (
    SELECT sum(r.amount) AS amount
    FROM loyalty_source.refunds_of_order(:merchant_id, w.order_id) AS r
) AS refunds ON true
LEFT JOIN loyalty.program_periods AS p
    ON
        p.merchant_id = :merchant_id
        AND o.paid_at >= p.valid_from
        AND (o.paid_at < p.valid_until OR p.valid_until IS NULL)
CROSS JOIN LATERAL loyalty.order_verdict(
    o.order_id, o.status, o.customer_id, o.total_amount, refunds.amount, o.points_redeemed, o.currency, o.paid_at,
    m.currency, p
) AS v
CROSS JOIN LATERAL (
    SELECT loyalty.customer_in_ledger(:merchant_id, nullif(o.customer_id, '')) AS customer_id
) AS holder
-- The amount that order_verdict reckons with, for people to read.
CROSS JOIN LATERAL (
    SELECT greatest(
        o.total_amount - coalesce(refunds.amount, 0) - o.points_redeemed * applied.point_value_amount, 0
    ) AS net_amount
) AS basis
-- An account that the order does not belong to deserves nothing of it.
CROSS JOIN LATERAL (
    SELECT CASE WHEN holder.customer_id = a.customer_id THEN v.target_points ELSE 0 END AS points
) AS deserved
ORDER BY w.position;
