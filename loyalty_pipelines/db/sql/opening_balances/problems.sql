-- What is wrong with lines, one thing per line, and how many lines are wrong; what is wrong with a merchant is said once.
-- A line that was imported before is right, however old it is by now. Reads the resolved lines.
SELECT
    p.line,
    p.what,
    p.merchant_id,
    p.customer_id,
    p.points,
    p.active_at,
    p.expires_at,
    p.first_line,
    p.into_customer_id,
    p.opening_points,
    count(*) OVER () AS problems
FROM (
    SELECT
        b.*,
        expiry.expires_at,
        CASE
            WHEN NOT b.is_merchant_known THEN 'merchant_unknown'
            WHEN NOT b.is_program_active THEN 'no_programme'
            WHEN b.line <> b.first_line THEN 'repeated'
            WHEN b.opening_points = b.points THEN NULL
            WHEN b.into_customer_id IS NOT NULL THEN 'merged'
            WHEN b.opening_points <> b.points THEN 'other_opening'
            WHEN b.active_at > now() THEN 'in_future'
            WHEN b.points > 0 AND expiry.expires_at <= now() THEN 'expired'
        END AS what
    FROM opening_balances AS b
    CROSS JOIN LATERAL (
        SELECT CASE WHEN b.is_account_later THEN b.account_expires_at ELSE b.own_expires_at END AS expires_at
    ) AS expiry
) AS p
WHERE
    p.what IS NOT NULL
    AND (p.what NOT IN ('merchant_unknown', 'no_programme') OR p.line = p.first_line_of_merchant)
ORDER BY p.line
LIMIT :row_limit;
