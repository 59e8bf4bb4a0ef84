-- What is in the batch, by outcome, in orders: an order that two accounts have points of counts once. Reads only the
-- batch.
SELECT
    l.outcome,
    count(*) AS lines,
    count(*) FILTER (WHERE NOT l.is_tracked) AS new_orders,
    count(DISTINCT l.order_id) FILTER (WHERE l.is_tracked) AS tracked_orders,
    count(*) FILTER (
        WHERE l.is_tracked AND l.outcome = 'earning' AND l.order_customer_id <> l.customer_id
    ) AS former_lines
FROM award_lines AS l
GROUP BY l.outcome;
