-- The subscriptions that changed, that changed payments name, and that changed orders or those of changed payments made, as
-- they are now. Gone at the end of the transaction. Indexes: the shop's on id and order.
CREATE TEMPORARY TABLE changed_subscriptions ON COMMIT DROP AS
SELECT DISTINCT ON (s.merchant_id, s.subscription_id) s.*
FROM (
    SELECT s.*
    FROM (
        SELECT
            array_agg(w.merchant_id) AS merchant_ids,
            array_agg(w.subscription_id) AS ids
        FROM (
            SELECT
                c.merchant_id,
                c.object_id AS subscription_id
            FROM changed_objects AS c
            WHERE c.relation = 'subscriptions'
            UNION
            SELECT
                p.merchant_id,
                p.subscription_id
            FROM changed_payments AS p
            WHERE p.subscription_id IS NOT NULL
        ) AS w
    ) AS k
    CROSS JOIN LATERAL loyalty_source.subscriptions_by_ids(k.merchant_ids, k.ids) AS s
    UNION ALL
    SELECT s.*
    FROM (
        SELECT
            array_agg(c.merchant_id) AS merchant_ids,
            array_agg(c.order_id) AS ids
        FROM changed_orders AS c
    ) AS k
    CROSS JOIN LATERAL loyalty_source.subscriptions_of_orders(k.merchant_ids, k.ids) AS s
) AS s;
