-- Adds a version; the caller holds the merchant's award lock, so numbers have no gaps and no two are equal (programs_pkey
-- would refuse that). Not repeatable by design: every call is a version of its own.
INSERT INTO loyalty.programs (
    merchant_id, version, valid_from, is_active, points_per_unit, unit_amount, multiplier, rounding, point_value_amount,
    points_expiration_days, stamps_per_order, stamp_min_amount, stamp_target, clawback, redemption_block_points,
    redemption_min_points, redemption_max_percent, warning_days, welcome_bonus_points, created_by
)
SELECT
    CAST(:merchant_id AS text),
    coalesce(max(p.version), 0) + 1,
    CAST(:valid_from AS timestamptz),
    CAST(:is_active AS boolean),
    CAST(:points_per_unit AS numeric),
    CAST(:unit_amount AS numeric),
    CAST(:multiplier AS numeric),
    CAST(:rounding AS text),
    CAST(:point_value_amount AS numeric),
    CAST(:points_expiration_days AS integer),
    CAST(:stamps_per_order AS integer),
    CAST(:stamp_min_amount AS numeric),
    CAST(:stamp_target AS integer),
    CAST(:clawback AS text),
    CAST(:redemption_block_points AS integer),
    CAST(:redemption_min_points AS integer),
    CAST(:redemption_max_percent AS numeric),
    CAST(:warning_days AS integer),
    CAST(:welcome_bonus_points AS bigint),
    CAST(:created_by AS text)
FROM loyalty.programs AS p
WHERE p.merchant_id = :merchant_id
RETURNING version;
