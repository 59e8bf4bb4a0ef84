-- Keeps a merchant's settings. Safe to repeat. Index subscription_settings_pkey.
INSERT INTO loyalty.subscription_settings AS s (
    merchant_id, is_report_only, max_fixes, max_money, tolerance_percent, grace_minutes, changed_by
)
VALUES (:merchant_id, :is_report_only, :max_fixes, :max_money, :tolerance_percent, :grace_minutes, :actor)
ON CONFLICT (merchant_id) DO UPDATE SET
    is_report_only = excluded.is_report_only,
    max_fixes = excluded.max_fixes,
    max_money = excluded.max_money,
    tolerance_percent = excluded.tolerance_percent,
    grace_minutes = excluded.grace_minutes,
    changed_by = excluded.changed_by,
    changed_at = now();
