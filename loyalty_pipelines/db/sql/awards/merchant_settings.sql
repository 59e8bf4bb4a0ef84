-- What a batch needs to know of its merchant: one row, also for a merchant that the shop no longer lists. Reads only.
SELECT
    m.currency,
    m.timezone,
    loyalty.is_timezone(m.timezone) AS is_timezone_usable,
    coalesce(p.clawback = 'allow_negative', false) AS is_debt_allowed,
    p.points_expiration_days
FROM (SELECT CAST(:merchant_id AS text) COLLATE "C" AS merchant_id) AS wanted
LEFT JOIN loyalty_source.merchants AS m ON m.merchant_id = wanted.merchant_id
LEFT JOIN loyalty.program_periods AS p
    ON
        p.merchant_id = wanted.merchant_id
        AND p.valid_from <= now()
        AND (p.valid_until > now() OR p.valid_until IS NULL)
LIMIT 1;
