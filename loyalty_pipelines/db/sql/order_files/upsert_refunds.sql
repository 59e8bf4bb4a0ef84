-- Brings the refund that stands for the file's refunded amount to it: one per order, named after the import so that it
-- meets no refund that somebody else wrote. Safe to repeat; what is equal is not touched.
WITH wanted AS MATERIALIZED (
    SELECT
        l.order_id,
        'import:' || l.order_id AS refund_id,
        l.refunded
    FROM order_file_lines AS l
    LEFT JOIN sample_shop.refunds AS r ON r.merchant_id = :merchant_id AND r.id = 'import:' || l.order_id
    WHERE coalesce(l.refunded, 0) <> coalesce(r.amount, 0)
),

removed AS (
    DELETE FROM sample_shop.refunds AS r
    USING wanted AS w
    WHERE r.merchant_id = :merchant_id AND r.id = w.refund_id AND coalesce(w.refunded, 0) = 0
),

written AS (
    INSERT INTO sample_shop.refunds (merchant_id, id, order_id, amount)
    SELECT
        CAST(:merchant_id AS text),
        w.refund_id,
        w.order_id,
        w.refunded
    FROM wanted AS w
    WHERE w.refunded > 0
    ON CONFLICT (merchant_id, id) DO UPDATE SET amount = excluded.amount, refunded_at = now()
)

SELECT count(*) AS refunds_changed
FROM wanted;
