-- Into whom both customers of a merge were merged before: themselves, if they were not. Reads only;
-- merged_customers_pkey.
SELECT
    loyalty.customer_in_ledger(:merchant_id, :customer_id) AS customer_id,
    loyalty.customer_in_ledger(:merchant_id, :into_customer_id) AS into_customer_id;
