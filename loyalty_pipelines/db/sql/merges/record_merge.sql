-- From here on orders, redemptions and questions of the customer are the other one's. merged_customers_pkey refuses a
-- second merge of one customer.
INSERT INTO loyalty.merged_customers (merchant_id, customer_id, into_customer_id, reason, actor)
VALUES (:merchant_id, :customer_id, :into_customer_id, :reason, :actor);
