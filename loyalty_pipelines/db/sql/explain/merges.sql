-- The merge of a customer into another one, and those of others into it, oldest first. Reads only; merged_customers_pkey.
SELECT
    m.customer_id,
    m.into_customer_id,
    m.reason,
    m.actor,
    m.merged_at
FROM loyalty.merged_customers AS m
WHERE m.merchant_id = :merchant_id AND (m.customer_id = :customer_id OR m.into_customer_id = :customer_id)
ORDER BY m.merged_at, m.customer_id;
