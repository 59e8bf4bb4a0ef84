-- Checkouts that are repeated by the shop find their answer on the other account. Safe to repeat; reads the merchant's
-- part of checkout_updates_pkey, once per merge.
UPDATE loyalty.checkout_updates AS u
SET account_id = :into_account_id
WHERE u.merchant_id = :merchant_id AND u.account_id = :from_account_id;
