-- A payment belongs to one subscription: of several that name its order, to the first that is kept. Those few rows only.
DELETE FROM checked_payments AS p
USING (
    SELECT
        s.merchant_id,
        s.subscription_id,
        row_number() OVER (
            PARTITION BY s.merchant_id, s.order_id ORDER BY s.is_kept DESC, s.created_at, s.subscription_id
        ) AS place
    FROM checked_subscriptions AS s
    INNER JOIN (
        SELECT
            t.merchant_id,
            t.order_id
        FROM checked_subscriptions AS t
        WHERE t.order_id IS NOT NULL
        GROUP BY t.merchant_id, t.order_id
        HAVING count(*) > 1
    ) AS shared ON shared.merchant_id = s.merchant_id AND shared.order_id = s.order_id
) AS ranked
WHERE
    ranked.place > 1
    AND p.merchant_id = ranked.merchant_id
    AND p.subscription_id = ranked.subscription_id
    AND p.link = 'order';
