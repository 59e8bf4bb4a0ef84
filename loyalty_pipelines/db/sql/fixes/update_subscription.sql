-- Changes a subscription in the shop's table. Safe to repeat: it sets what is set, and updated_at. Index: the shop's own
-- on its key.
SELECT loyalty_source.update_subscription(:merchant_id, :subscription_id, CAST(:changes AS jsonb));
