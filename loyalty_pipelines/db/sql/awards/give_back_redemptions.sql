-- Gives back what the undone orders of the batch have reserved or redeemed, once each; repeating it finds nothing. Runs
-- under the merchant's award lock, in order of the accounts. Indexes holds_pkey and the shop's primary key.
SELECT (loyalty.give_back_hold(:merchant_id, due.order_id, 'the order was undone', :actor, :run_id)).status
FROM (
    SELECT d.order_id
    FROM loyalty.redemptions_due(:merchant_id, ARRAY(SELECT DISTINCT l.order_id FROM award_lines AS l)) AS d
    WHERE d.step = 'give_back'
    ORDER BY d.account_id, d.order_id
    OFFSET 0
) AS due;
