-- Gives back what the order has reserved; repeating it finds nothing to give back. Index holds_pkey.
SELECT (loyalty.give_back_hold(:merchant_id, :order_id, :reason, :actor, NULL)).status;
