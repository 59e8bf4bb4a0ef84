-- Settings of merchants; who has none has the defaults of the columns. Only reads. Index subscription_settings_pkey.
SELECT
    s.merchant_id,
    s.is_report_only,
    s.max_fixes,
    s.max_money,
    s.tolerance_percent,
    s.grace_minutes,
    s.changed_by,
    s.changed_at
FROM loyalty.subscription_settings AS s
WHERE s.merchant_id = ANY(CAST(:merchant_ids AS text[]));
