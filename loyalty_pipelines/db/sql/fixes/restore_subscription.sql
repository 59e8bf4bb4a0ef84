-- Puts back the shop's own values of a subscription. Safe to repeat: it sets what is set. Index: the shop's own on its
-- key.
SELECT loyalty_source.restore_subscription(:merchant_id, :subscription_id, CAST(:raw_row AS jsonb));
