-- Locks the accounts of these holds in key order, and leaves out those that somebody else has locked: a checkout at work
-- is not waited for. FOR NO KEY UPDATE, because FOR UPDATE would block the foreign key checks of others' entries.
-- Safe to repeat; index accounts_pkey.
SELECT
    a.merchant_id,
    a.account_id
FROM loyalty.accounts AS a
INNER JOIN (
    SELECT DISTINCT
        k.merchant_id COLLATE "C" AS merchant_id,
        k.account_id
    FROM unnest(CAST(:merchant_ids AS text[]), CAST(:account_ids AS bigint[])) AS k (merchant_id, account_id)
) AS wanted ON wanted.merchant_id = a.merchant_id AND wanted.account_id = a.account_id
ORDER BY a.merchant_id, a.account_id
FOR NO KEY UPDATE OF a SKIP LOCKED;
