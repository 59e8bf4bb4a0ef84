-- Active merchants of the shop, and those of them with an active programme now. Reads only; programs_pkey.
SELECT
    count(*) AS in_shop,
    count(*) FILTER (
        WHERE EXISTS (
            SELECT 1
            FROM loyalty.program_periods AS p
            WHERE
                p.merchant_id = m.merchant_id
                AND p.is_active
                AND p.valid_from <= now()
                AND (p.valid_until > now() OR p.valid_until IS NULL)
        )
    ) AS with_program
FROM loyalty_source.merchants AS m
WHERE m.is_active;
