-- What a look at what changed can say something about: only of these is a finding opened or closed. A row that came in
-- beside them has other rows that did not. What was changed and is gone is among them.
INSERT INTO found_scope (merchant_id, object_type, object_id)
SELECT
    c.merchant_id,
    rtrim(c.relation, 's'),
    c.object_id
FROM changed_objects AS c
UNION
SELECT
    o.merchant_id,
    'order',
    o.order_id
FROM source_orders AS o
UNION
SELECT
    s.merchant_id,
    'subscription',
    s.subscription_id
FROM source_subscriptions AS s
WHERE
    (s.merchant_id, s.customer_id) IN (
        SELECT
            t.merchant_id,
            t.customer_id
        FROM touched_customers AS t
    )
UNION
-- Subscriptions of nobody.
SELECT
    s.merchant_id,
    'subscription',
    s.subscription_id
FROM changed_subscriptions AS s
WHERE s.customer_id IS NULL
UNION
SELECT
    p.merchant_id,
    'payment',
    p.payment_id
FROM source_payments AS p
LEFT JOIN source_orders AS o ON o.merchant_id = p.merchant_id AND o.order_id = p.order_id
LEFT JOIN source_subscriptions AS s ON s.merchant_id = p.merchant_id AND s.subscription_id = p.subscription_id
WHERE
    coalesce(p.customer_id, o.customer_id, s.customer_id) IS NULL
    OR (p.merchant_id, coalesce(p.customer_id, o.customer_id, s.customer_id)) IN (
        SELECT
            t.merchant_id,
            t.customer_id
        FROM touched_customers AS t
    );
