-- What the import did, by merchant. Reads the resolved lines.
SELECT
    b.merchant_id,
    count(*) AS lines,
    count(*) FILTER (WHERE b.opening_points IS NOT NULL OR (b.points = 0 AND NOT b.is_account_new)) AS lines_done,
    count(*) FILTER (WHERE b.is_account_new) AS accounts_new,
    count(*) FILTER (WHERE b.points > 0 AND b.opening_points IS NULL) AS entries,
    CAST(coalesce(sum(b.points) FILTER (WHERE b.opening_points IS NULL), 0) AS bigint) AS points
FROM opening_balances AS b
GROUP BY b.merchant_id
ORDER BY b.merchant_id;
