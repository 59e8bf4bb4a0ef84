-- A payment belongs to one subscription. Only where there are several of one order: it reads all payments.
DELETE FROM checked_payments AS p
USING second_subscriptions AS s
WHERE p.merchant_id = s.merchant_id AND p.subscription_id = s.subscription_id AND p.link = 'order';
