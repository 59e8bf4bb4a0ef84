-- Orders that have been on more than one account: only one may deserve their points. Reads order_points_pkey alone.
INSERT INTO integrity_orders (merchant_id, reference_type, order_id)
SELECT
    op.merchant_id,
    'order',
    op.order_id
FROM loyalty.order_points AS op
WHERE CAST(:merchant_ids AS text[]) IS NULL OR op.merchant_id = ANY(CAST(:merchant_ids AS text[]))
GROUP BY op.merchant_id, op.order_id
HAVING count(*) > 1;
