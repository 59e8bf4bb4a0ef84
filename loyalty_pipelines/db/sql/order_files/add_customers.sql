-- Adds the file's customers that the shop doesn't have; safe to repeat. Primary key of sample_shop.customers.
INSERT INTO sample_shop.customers (merchant_id, id)
SELECT DISTINCT
    CAST(:merchant_id AS text),
    l.customer_id
FROM order_file_lines AS l
WHERE l.customer_id IS NOT NULL
ON CONFLICT (merchant_id, id) DO NOTHING;
