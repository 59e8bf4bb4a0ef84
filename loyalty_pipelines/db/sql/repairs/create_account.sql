-- Makes the customer's account if it is missing; safe to repeat. accounts_one_per_customer.
INSERT INTO loyalty.accounts (merchant_id, customer_id)
VALUES (:merchant_id, :customer_id)
ON CONFLICT (merchant_id, customer_id) DO NOTHING;
