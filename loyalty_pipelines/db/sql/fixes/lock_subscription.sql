-- Reads the shop's own values of one subscription and locks its row until the transaction ends. Safe to repeat: the
-- same transaction may lock it again. Index: the shop's own on its key.
SELECT CAST(loyalty_source.lock_subscription(:merchant_id, :subscription_id) AS text);
