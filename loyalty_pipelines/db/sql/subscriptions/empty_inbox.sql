-- What this snapshot saw has been compared; what was noted since stays.
DELETE FROM loyalty.subscription_inbox AS i
USING checked_merchants AS m
WHERE m.merchant_id = i.merchant_id;
