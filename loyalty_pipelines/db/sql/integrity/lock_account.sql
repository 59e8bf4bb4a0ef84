-- Locks an account that is to be repaired: what its columns should be is asked after it. Index accounts_pkey.
SELECT a.account_id
FROM loyalty.accounts AS a
WHERE a.merchant_id = :merchant_id AND a.account_id = :account_id
FOR NO KEY UPDATE;
