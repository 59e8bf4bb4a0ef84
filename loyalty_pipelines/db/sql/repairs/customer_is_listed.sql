-- Whether the shop lists the customer. Reads only; all of the shop's customers where their ids are not text.
SELECT
    EXISTS(
        SELECT 1
        FROM loyalty_source.customers AS c
        WHERE
            c.merchant_id = CAST(:merchant_id AS text) COLLATE "C"
            AND c.customer_id = CAST(:customer_id AS text) COLLATE "C"
    );
