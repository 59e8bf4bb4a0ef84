-- Of several subscriptions that name one order all but the first that is kept: its payment belongs to that one. Gone at
-- the end of the transaction.
CREATE TEMPORARY TABLE second_subscriptions ON COMMIT DROP AS
SELECT
    ranked.merchant_id,
    ranked.subscription_id
FROM (
    SELECT
        s.merchant_id,
        s.subscription_id,
        row_number() OVER (
            PARTITION BY s.merchant_id, s.order_id ORDER BY s.is_kept DESC, s.created_at, s.subscription_id
        ) AS place
    FROM checked_subscriptions AS s
    INNER JOIN (
        -- Two orders with one hash are ranked each by itself. Numbers sort faster than they are grouped by a hash.
        SELECT again.order_key
        FROM (
            SELECT
                t.order_key,
                row_number() OVER (PARTITION BY t.order_key) AS place
            FROM checked_subscriptions AS t
            WHERE t.order_key IS NOT NULL
        ) AS again
        WHERE again.place = 2
    ) AS shared ON shared.order_key = s.order_key
) AS ranked
WHERE ranked.place > 1;
