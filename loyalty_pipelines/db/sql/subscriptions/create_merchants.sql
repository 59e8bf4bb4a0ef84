-- The merchants that are compared, with what holds for each: settings, currency, what a point is worth. Gone at the end of
-- the transaction.
CREATE TEMPORARY TABLE checked_merchants ON COMMIT DROP AS
SELECT
    m.merchant_id COLLATE "C" AS merchant_id,
    t.currency COLLATE "C" AS currency,
    coalesce(t.point_value_amount, 0) AS point_value_amount,
    coalesce(s.tolerance_percent, 1) / 100 AS tolerance,
    make_interval(mins => coalesce(s.grace_minutes, 0)) AS grace
FROM unnest(CAST(:merchant_ids AS text[])) AS m (merchant_id)
LEFT JOIN loyalty.subscription_settings AS s ON s.merchant_id = m.merchant_id COLLATE "C"
LEFT JOIN LATERAL loyalty.merchant_terms(m.merchant_id) AS t ON true;
