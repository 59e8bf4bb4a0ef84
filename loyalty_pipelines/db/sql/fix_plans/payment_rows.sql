-- Reads the shop's own values of payments. Only reads. Index: the shop's own.
SELECT
    t.target_id,
    CAST(loyalty_source.payment_row(CAST(:merchant_id AS text), t.target_id) AS text) AS raw_row
FROM unnest(CAST(:target_ids AS text[])) AS t (target_id);
