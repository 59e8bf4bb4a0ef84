-- The payments to compare: of touched customers, changed ones, and those that name a touched order or subscription. Gone
-- at the end of the transaction. Indexes: the shop's on order and subscription; one scan where there is
-- none.
CREATE TEMPORARY TABLE source_payments ON COMMIT DROP AS
SELECT DISTINCT ON (p.merchant_id, p.payment_id) p.*
FROM (
    SELECT p.*
    FROM changed_payments AS p
    UNION ALL
    SELECT p.*
    FROM customer_payments AS p
    UNION ALL
    SELECT p.*
    FROM (
        SELECT
            array_agg(w.merchant_id) AS merchant_ids,
            array_agg(w.order_id) AS ids
        FROM (
            SELECT
                t.merchant_id,
                t.order_id
            FROM touched_orders AS t
            UNION
            SELECT
                s.merchant_id,
                s.order_id
            FROM source_subscriptions AS s
            WHERE s.order_id IS NOT NULL
        ) AS w
    ) AS k
    CROSS JOIN LATERAL loyalty_source.payments_of_orders(k.merchant_ids, k.ids) AS p
    UNION ALL
    SELECT p.*
    FROM (
        SELECT
            array_agg(w.merchant_id) AS merchant_ids,
            array_agg(w.subscription_id) AS ids
        FROM (
            SELECT
                s.merchant_id,
                s.subscription_id
            FROM source_subscriptions AS s
            UNION
            -- Those that are gone.
            SELECT
                c.merchant_id,
                c.object_id
            FROM changed_objects AS c
            WHERE c.relation = 'subscriptions'
        ) AS w
    ) AS k
    CROSS JOIN LATERAL loyalty_source.payments_of_subscriptions(k.merchant_ids, k.ids) AS p
) AS p;
