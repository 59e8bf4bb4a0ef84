-- All versions of a merchant's programme in the order in which they apply. Reads only; programs_pkey.
SELECT
    p.merchant_id,
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
FROM loyalty.program_periods AS p
WHERE p.merchant_id = :merchant_id
ORDER BY p.valid_from, p.version;
