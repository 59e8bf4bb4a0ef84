-- Live subscriptions of customers who have several. Gone at the end of the transaction.
CREATE TEMPORARY TABLE side_by_side ON COMMIT DROP AS
SELECT s.*
FROM checked_subscriptions AS s
INNER JOIN (
    -- Of two customers with one hash none has another subscription beside it. Numbers sort faster than they are grouped by
    -- a hash.
    SELECT again.customer_key
    FROM (
        SELECT
            t.customer_key,
            row_number() OVER (PARTITION BY t.customer_key) AS place
        FROM checked_subscriptions AS t
        WHERE t.is_live AND t.customer_key IS NOT NULL
    ) AS again
    WHERE again.place = 2
) AS several ON several.customer_key = s.customer_key
WHERE s.is_live;
