-- Customers of subscriptions whom the shop does not have. Gone at the end of the transaction. Reads the shop's subscriptions
-- and customers once, in parallel.
CREATE TEMPORARY TABLE unknown_customers ON COMMIT DROP AS
SELECT DISTINCT
    s.merchant_id,
    s.customer_id
FROM source_subscriptions AS s
WHERE
    CAST(:has_customers AS boolean)
    AND s.customer_id IS NOT NULL
    AND NOT EXISTS (
        SELECT 1
        FROM loyalty_source.customers AS cu
        WHERE cu.merchant_id = s.merchant_id AND cu.customer_id = s.customer_id
    );
