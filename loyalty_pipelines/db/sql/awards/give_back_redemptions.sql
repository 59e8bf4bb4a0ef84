-- Gives back what these undone orders have reserved or redeemed, once each; repeating it finds nothing. Runs under the
-- merchant's award lock, on accounts that are locked. Index holds_pkey.
SELECT (loyalty.give_back_hold(:merchant_id, due.order_id, 'the order was undone', :actor, :run_id)).status
FROM unnest(CAST(:order_ids AS text[])) AS due (order_id);
