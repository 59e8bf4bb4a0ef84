-- Every merchant of the shop or of the programmes, with the version in force at :at. Reads only; programs_pkey.
SELECT
    merchants.merchant_id,
    m.name,
    m.currency,
    p.version,
    p.valid_from,
    p.valid_until,
    p.is_active,
    p.points_per_unit,
    p.unit_amount,
    p.multiplier,
    p.rounding,
    p.point_value_amount,
    p.points_expiration_days,
    p.stamps_per_order,
    p.stamp_min_amount,
    p.stamp_target,
    p.clawback,
    p.redemption_block_points,
    p.redemption_min_points,
    p.redemption_max_percent,
    p.warning_days,
    p.welcome_bonus_points,
    p.created_at,
    p.created_by
FROM (
    SELECT s.merchant_id FROM loyalty_source.merchants AS s
    UNION
    SELECT v.merchant_id FROM loyalty.programs AS v
) AS merchants
LEFT JOIN loyalty_source.merchants AS m ON m.merchant_id = merchants.merchant_id
LEFT JOIN loyalty.program_periods AS p
    ON
        p.merchant_id = merchants.merchant_id
        AND p.valid_from <= coalesce(CAST(:at AS timestamptz), now())
        AND (p.valid_until > coalesce(CAST(:at AS timestamptz), now()) OR p.valid_until IS NULL)
ORDER BY merchants.merchant_id;
