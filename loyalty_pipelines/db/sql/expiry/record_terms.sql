-- Remembers the terms by which a merchant's accounts are computed now, all of them or (NOT :is_complete) but for those that
-- PostgreSQL refused to change. Safe to repeat; expiry_terms_pkey.
INSERT INTO loyalty.expiry_terms AS t (merchant_id, points_expiration_days, timezone, is_program_active, is_complete)
VALUES (:merchant_id, :expiration_days, :timezone, :is_program_active, :is_complete)
ON CONFLICT (merchant_id) DO UPDATE SET
    points_expiration_days = excluded.points_expiration_days,
    timezone = excluded.timezone,
    is_program_active = excluded.is_program_active,
    is_complete = excluded.is_complete,
    recorded_at = now();
