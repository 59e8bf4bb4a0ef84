-- Reads the shop's own values of one subscription; NULL when there is none. Safe to repeat: it only reads.
-- Index: the shop's own on its key.
SELECT CAST(loyalty_source.subscription_row(:merchant_id, :subscription_id) AS text);
