-- Whether the shop lists the customer. Reads only; the shop's own keys.
SELECT
    EXISTS(
        SELECT 1
        FROM loyalty_source.customers AS c
        WHERE
            c.merchant_id = CAST(:merchant_id AS text) COLLATE "C"
            AND c.customer_id = CAST(:customer_id AS text) COLLATE "C"
    );
