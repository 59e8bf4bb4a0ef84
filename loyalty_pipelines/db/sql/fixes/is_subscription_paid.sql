-- Whether a payment names a subscription. Only reads. Index: the shop's on the payments' subscription; one scan without.
SELECT exists(
    SELECT 1
    FROM loyalty_source.payments_of_subscriptions(
        ARRAY[CAST(:merchant_id AS text)], ARRAY[CAST(:subscription_id AS text)]
    )
) AS is_paid;
