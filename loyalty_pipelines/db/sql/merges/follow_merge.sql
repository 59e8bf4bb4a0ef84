-- Customers who were merged into the one who is merged now go along: nobody has to follow a chain. Safe to repeat; reads
-- the merchant's part of merged_customers_pkey.
UPDATE loyalty.merged_customers AS m
SET into_customer_id = :into_customer_id
WHERE m.merchant_id = :merchant_id AND m.into_customer_id = :customer_id;
