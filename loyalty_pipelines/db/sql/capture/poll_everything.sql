-- Poll mode when poll.sql fails because one order raises an error: enqueues all orders changed or refunded since :since
-- without looking at them. The batches then isolate that one. Orders that wait already are left out.
INSERT INTO loyalty.order_inbox (merchant_id, order_id, source)
SELECT
    candidate.merchant_id,
    candidate.order_id,
    'poll'
FROM loyalty.changed_orders(CAST(:since AS timestamptz)) AS candidate
WHERE
    NOT EXISTS (
        SELECT 1
        FROM loyalty.order_inbox AS i
        WHERE i.merchant_id = candidate.merchant_id AND i.customer_id = '' AND i.order_id = candidate.order_id
    );
