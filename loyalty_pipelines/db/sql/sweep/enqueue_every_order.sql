-- Puts all orders of the merchant into the inbox without looking at them: for a merchant whose orders can't be compared
-- because one of them raises an error. The batches then isolate that one, and find the others right or award them.
INSERT INTO loyalty.order_inbox (merchant_id, order_id, source)
SELECT
    CAST(:merchant_id AS text),
    o.order_id,
    'sweep'
FROM loyalty_source.orders_of_merchant(CAST(:merchant_id AS text)) AS o
WHERE
    (CAST(:paid_from AS timestamptz) IS NULL OR o.paid_at >= CAST(:paid_from AS timestamptz))
    AND (CAST(:paid_to AS timestamptz) IS NULL OR o.paid_at < CAST(:paid_to AS timestamptz));
