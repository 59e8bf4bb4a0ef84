-- Remembers the terms by which a merchant's accounts are computed now. Safe to repeat; expiry_terms_pkey.
INSERT INTO loyalty.expiry_terms AS t (merchant_id, points_expiration_days, timezone, is_program_active)
VALUES (:merchant_id, :expiration_days, :timezone, :is_program_active)
ON CONFLICT (merchant_id) DO UPDATE SET
    points_expiration_days = excluded.points_expiration_days,
    timezone = excluded.timezone,
    is_program_active = excluded.is_program_active,
    recorded_at = now();
