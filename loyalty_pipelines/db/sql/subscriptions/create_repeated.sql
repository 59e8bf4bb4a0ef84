-- Payments of orders that several payments took money for. Gone at the end of the transaction. Reads the shop's payments twice, in
-- parallel.
CREATE TEMPORARY TABLE repeated_payments ON COMMIT DROP AS
SELECT
    p.merchant_id,
    p.payment_id,
    p.order_id,
    p.customer_id,
    p.status,
    p.amount,
    CASE WHEN p.refunded_amount BETWEEN 0 AND 1000000000000000 THEN p.refunded_amount ELSE 0 END AS refunded_amount,
    p.currency,
    p.period_start,
    coalesce(p.captured_at, p.created_at, p.updated_at) AS captured_at
FROM source_payments AS p
INNER JOIN (
    SELECT
        t.merchant_id,
        t.order_id
    FROM source_payments AS t
    WHERE t.status = 'captured' AND t.order_id IS NOT NULL
    GROUP BY t.merchant_id, t.order_id
    HAVING count(*) > 1
) AS several ON several.merchant_id = p.merchant_id AND several.order_id = p.order_id
WHERE p.status = 'captured' AND p.amount BETWEEN 0 AND 1000000000000000;
