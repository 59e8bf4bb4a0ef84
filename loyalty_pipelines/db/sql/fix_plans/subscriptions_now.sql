-- The columns of subscriptions that a fix may change, in the words of loyalty_source. Only reads. Indexes: the shop's own.
SELECT
    s.merchant_id,
    s.subscription_id,
    CAST(
        jsonb_build_object(
            'status', s.status, 'current_period_start', s.current_period_start, 'current_period_end', s.current_period_end,
            'cancelled_at', s.cancelled_at
        ) AS text
    ) AS columns_text
FROM loyalty_source.subscriptions_by_ids(CAST(:merchant_ids AS text[]), CAST(:subscription_ids AS text[])) AS s;
