-- Takes the points that these paid orders owe: the checkout ended before it captured them, or the order was cancelled and
-- is paid again. What is not there any more goes to the queue. Repeating it finds nothing. Runs under the merchant's
-- award lock, on accounts that are locked. Index holds_pkey.
SELECT loyalty.take_or_queue(:merchant_id, due.order_id, :actor, :run_id) AS is_taken
FROM unnest(CAST(:order_ids AS text[])) AS due (order_id);
