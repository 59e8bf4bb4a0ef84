-- The inbox row that ends the next batch: the :batch_size-th after the last one. Walks the primary key from there, so
-- the rows that earlier batches removed are not stepped over again. No row: the batch is the rest. Reads only.
SELECT
    i.customer_id,
    i.inbox_id
FROM loyalty.order_inbox AS i
WHERE
    i.merchant_id = :merchant_id
    AND (i.customer_id, i.inbox_id) > (:after_customer_id, :after_inbox_id)
ORDER BY i.customer_id, i.inbox_id
OFFSET :batch_size - 1 LIMIT 1;
