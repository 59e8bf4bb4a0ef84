-- Reads the shop's own values of one payment; NULL when there is none. Safe to repeat: it only reads.
-- Index: the shop's own on its key.
SELECT CAST(loyalty_source.payment_row(:merchant_id, :payment_id) AS text);
