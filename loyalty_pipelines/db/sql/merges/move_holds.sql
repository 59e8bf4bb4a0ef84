-- Reservations and redemptions go along: what is captured, released or given back later is the other account's. Both
-- accounts are locked; safe to repeat. Reads the merchant's part of holds_pkey, once per merge.
UPDATE loyalty.holds AS h
SET account_id = :into_account_id
WHERE h.merchant_id = :merchant_id AND h.account_id = :from_account_id;
