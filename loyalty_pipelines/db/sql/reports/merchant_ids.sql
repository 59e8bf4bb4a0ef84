-- All merchants that the shop, the programmes or the ledger have: those that left the shop, too, who still owe points.
-- Reads only; accounts_expiring or all accounts, programs_pkey.
SELECT a.merchant_id
FROM loyalty.accounts AS a
UNION
SELECT p.merchant_id
FROM loyalty.programs AS p
UNION
SELECT m.merchant_id COLLATE "C"
FROM loyalty_source.merchants AS m
ORDER BY merchant_id;
