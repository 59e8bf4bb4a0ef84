-- One hash join of the three tables, with a number of each.
SELECT count(*), sum(p.amount), sum(o.total), sum(s.price)
FROM sample_shop.payments AS p
LEFT JOIN sample_shop.orders AS o ON o.merchant_id = p.merchant_id AND o.id = p.order_id
LEFT JOIN sample_shop.subscriptions AS s ON s.merchant_id = p.merchant_id AND s.order_id = p.order_id
