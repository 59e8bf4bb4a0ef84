-- Reservations and redemptions go along: what is captured, released or given back later is the other account's. Both
-- accounts are locked; safe to repeat. holds_by_account.
UPDATE loyalty.holds AS h
SET account_id = :into_account_id
WHERE h.merchant_id = :merchant_id AND h.account_id = :from_account_id;
