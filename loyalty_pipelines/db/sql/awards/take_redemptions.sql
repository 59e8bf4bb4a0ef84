-- Takes the points that paid orders of the batch owe: the checkout ended before it captured them, or the order was
-- cancelled and is paid again. What is not there any more goes to the queue. Repeating it finds nothing. Runs under the
-- merchant's award lock, in order of the accounts. Indexes holds_pkey and the shop's primary key.
SELECT loyalty.take_or_queue(:merchant_id, due.order_id, :actor, :run_id) AS is_taken
FROM (
    SELECT d.order_id
    FROM loyalty.redemptions_due(:merchant_id, ARRAY(SELECT DISTINCT l.order_id FROM award_lines AS l)) AS d
    WHERE d.step = 'take'
    ORDER BY d.account_id, d.order_id
    OFFSET 0
) AS due;
