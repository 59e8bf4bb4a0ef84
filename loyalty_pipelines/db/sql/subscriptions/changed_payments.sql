-- The payments that changed, as they are now. Gone at the end of the transaction. Index: the shop's primary key.
CREATE TEMPORARY TABLE changed_payments ON COMMIT DROP AS
SELECT p.*
FROM (
    SELECT
        array_agg(c.merchant_id) AS merchant_ids,
        array_agg(c.object_id) AS ids
    FROM changed_objects AS c
    WHERE c.relation = 'payments'
) AS k
CROSS JOIN LATERAL loyalty_source.payments_by_ids(k.merchant_ids, k.ids) AS p;
