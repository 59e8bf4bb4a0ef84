-- How many accounts and entries of each merchant were looked at.
SELECT
    s.merchant_id,
    count(*) AS accounts,
    sum(s.entries) AS entries
FROM integrity_sums AS s
GROUP BY s.merchant_id;
