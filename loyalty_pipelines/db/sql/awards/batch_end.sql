-- The inbox row that ends the next batch: the :batch_size-th after the last one, or else the last of all, which no
-- constant could stand for (a customer's id may be any text). Walks the primary key from there, so the rows that earlier
-- batches removed are not stepped over again; the second part runs only when the first finds none. Reads only.
(
    SELECT
        i.customer_id,
        i.inbox_id,
        false AS is_last
    FROM loyalty.order_inbox AS i
    WHERE
        i.merchant_id = :merchant_id
        AND (i.customer_id, i.inbox_id) > (:after_customer_id, :after_inbox_id)
    ORDER BY i.customer_id, i.inbox_id
    LIMIT 1 OFFSET :batch_size - 1
)
UNION ALL
(
    SELECT
        i.customer_id,
        i.inbox_id,
        true AS is_last
    FROM loyalty.order_inbox AS i
    WHERE
        i.merchant_id = :merchant_id
        AND (i.customer_id, i.inbox_id) > (:after_customer_id, :after_inbox_id)
    ORDER BY i.customer_id DESC, i.inbox_id DESC
    LIMIT 1
)
LIMIT 1;
