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
        -- By a hash, in half of the time; a few too many are ranked alone.
        SELECT hashtextextended(t.order_id, hashtextextended(t.merchant_id, 0)) AS order_hash
        FROM checked_subscriptions AS t
        WHERE t.order_id IS NOT NULL
        GROUP BY hashtextextended(t.order_id, hashtextextended(t.merchant_id, 0))
        HAVING count(*) > 1
    ) AS shared ON shared.order_hash = hashtextextended(s.order_id, hashtextextended(s.merchant_id, 0))
) AS ranked
WHERE
    ranked.place > 1
    AND p.merchant_id = ranked.merchant_id
    AND p.subscription_id = ranked.subscription_id
    AND p.link = 'order';
