-- Poll mode: notes what the shop changed since the last poll, less the overlap; by updated_at of each relation, where it is
-- mapped. Safe to repeat: what is noted twice is looked at once. Indexes: the shop's on updated_at.
INSERT INTO loyalty.subscription_inbox (relation, merchant_id, object_id)
SELECT
    'orders',
    o.merchant_id,
    o.order_id
FROM loyalty_source.orders_changed_since(CAST(:since AS timestamptz)) AS o
UNION
SELECT
    'payments',
    p.merchant_id,
    p.object_id
FROM loyalty_source.payments_changed_since(CAST(:since AS timestamptz)) AS p
UNION
SELECT
    'subscriptions',
    s.merchant_id,
    s.object_id
FROM loyalty_source.subscriptions_changed_since(CAST(:since AS timestamptz)) AS s;
