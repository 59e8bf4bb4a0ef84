-- An order that the source mapping shows more than once (a view that joins orders with payments) has no one amount: it
-- is not decided, and waits in the queue. Leaves one line of it. Run only when the batch has more lines than orders;
-- an order that moved has several too, one for each account that has points of it.
WITH ambiguous AS (
    SELECT
        found.order_id,
        max(found.times) AS times
    FROM (
        SELECT
            l.order_id,
            count(*) AS times
        FROM award_lines AS l
        GROUP BY l.order_id, l.account_id
        HAVING count(*) > 1
    ) AS found
    GROUP BY found.order_id
),

removed AS (
    DELETE FROM award_lines AS l
    USING ambiguous
    WHERE l.order_id = ambiguous.order_id
    RETURNING l.order_id, l.order_customer_id, l.changed_at, ambiguous.times
)

INSERT INTO award_lines
SELECT
    removed.order_id,
    min(removed.order_customer_id),
    CAST(NULL AS text),
    CAST(NULL AS bigint),
    'order_ambiguous',
    'the source mapping shows the order ' || max(removed.times) || ' times',
    0,
    0,
    0,
    0,
    CAST(NULL AS integer),
    CAST(NULL AS timestamptz),
    max(removed.changed_at),
    false,
    0,
    0,
    0,
    0,
    0,
    0
FROM removed
GROUP BY removed.order_id;
