-- What a batch needs to know of its merchant: one row, also for a merchant that the shop no longer lists. Reads only.
SELECT
    t.currency,
    t.timezone,
    t.is_timezone_usable,
    t.is_debt_allowed,
    t.points_expiration_days,
    CASE WHEN t.is_program_active THEN t.stamp_target END AS stamp_target,
    coalesce(
        (
            SELECT true
            FROM loyalty.holds AS h
            WHERE h.merchant_id = :merchant_id
            LIMIT 1
        ),
        false
    ) AS has_redemptions
FROM loyalty.merchant_terms(CAST(:merchant_id AS text)) AS t;
