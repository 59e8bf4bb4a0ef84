-- How much was looked at, by merchant.
SELECT
    m.merchant_id,
    coalesce(p.payments, 0) AS payments,
    coalesce(s.subscriptions, 0) AS subscriptions
FROM checked_merchants AS m
LEFT JOIN (
    SELECT
        c.merchant_id,
        count(*) AS payments
    FROM checked_payments AS c
    GROUP BY c.merchant_id
) AS p ON p.merchant_id = m.merchant_id
LEFT JOIN (
    SELECT
        c.merchant_id,
        count(*) AS subscriptions
    FROM checked_subscriptions AS c
    GROUP BY c.merchant_id
) AS s ON s.merchant_id = m.merchant_id
ORDER BY m.merchant_id;
