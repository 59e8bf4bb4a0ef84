-- Payments of orders that several payments took money for. Gone at the end of the transaction. Reads the shop's payments
-- twice, in parallel. Grouped by a hash of the order, which is half of the time; where two orders share one, a few
-- payments too many are here, and each is judged by its own order.
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
    SELECT hashtextextended(t.order_id, hashtextextended(t.merchant_id, 0)) AS order_hash
    FROM source_payments AS t
    WHERE t.status = 'captured' AND t.order_id IS NOT NULL
    GROUP BY hashtextextended(t.order_id, hashtextextended(t.merchant_id, 0))
    HAVING count(*) > 1
) AS several ON several.order_hash = hashtextextended(p.order_id, hashtextextended(p.merchant_id, 0))
WHERE p.status = 'captured' AND p.amount BETWEEN 0 AND 1000000000000000;
