-- For shops whose payments don't say what was given back, while a relation of refunds does: the refunds of an order are
-- those of its payments, the newest first.
UPDATE checked_payments AS p
SET refunded_amount = folded.refunded_amount
FROM (
    SELECT
        c.merchant_id,
        c.payment_id,
        greatest(
            0,
            least(
                c.amount,
                r.amount - coalesce(
                    sum(c.amount) OVER (
                        PARTITION BY c.merchant_id, c.order_id ORDER BY c.captured_at DESC, c.payment_id DESC
                        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                    ),
                    0
                )
            )
        ) AS refunded_amount
    FROM checked_payments AS c
    INNER JOIN (
        SELECT
            f.merchant_id,
            f.order_id,
            sum(f.amount) AS amount
        FROM loyalty_source.refunds AS f
        WHERE f.amount BETWEEN 0 AND 1000000000000000
        GROUP BY f.merchant_id, f.order_id
    ) AS r ON r.merchant_id = c.merchant_id AND r.order_id = c.order_id
    WHERE c.status IN ('captured', 'disputed')
) AS folded
WHERE
    p.merchant_id = folded.merchant_id
    AND p.payment_id = folded.payment_id
    AND p.refunded_amount < folded.refunded_amount;
