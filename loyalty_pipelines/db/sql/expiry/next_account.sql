-- The account after a key: of a page of one, the one that PostgreSQL refused. Reads only; accounts_pkey.
SELECT
    a.account_id,
    a.customer_id
FROM loyalty.accounts AS a
WHERE a.merchant_id = :merchant_id AND a.account_id > :after_account_id
ORDER BY a.account_id
LIMIT 1;
