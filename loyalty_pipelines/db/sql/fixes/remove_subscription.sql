-- Deletes a subscription from the shop's table. Safe to repeat: what is gone stays gone. Index: the shop's own on its
-- key.
SELECT loyalty_source.remove_subscription(:merchant_id, :subscription_id);
