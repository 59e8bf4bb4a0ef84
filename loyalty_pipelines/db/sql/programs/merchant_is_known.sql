-- Whether the shop or the ledger has a merchant of that id: one that left the shop still has accounts. Reads only, in
-- the primary keys of the loyalty tables.
SELECT
    EXISTS(
        SELECT 1
        FROM loyalty_source.merchants AS m
        WHERE m.merchant_id = CAST(:merchant_id AS text) COLLATE "C"
    ) AS is_in_shop,
    EXISTS (SELECT 1 FROM loyalty.programs AS p WHERE p.merchant_id = :merchant_id)
    OR EXISTS (SELECT 1 FROM loyalty.accounts AS a WHERE a.merchant_id = :merchant_id)
    OR EXISTS (SELECT 1 FROM loyalty.order_inbox AS i WHERE i.merchant_id = :merchant_id) AS is_in_ledger;
