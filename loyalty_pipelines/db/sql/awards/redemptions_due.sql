-- What the redemptions of the batch's orders need: few orders have one. Reads only; holds_pkey, the shop's primary key.
SELECT
    d.order_id,
    d.step
FROM loyalty.redemptions_due(:merchant_id, ARRAY(SELECT DISTINCT l.order_id FROM award_lines AS l)) AS d
ORDER BY d.account_id, d.order_id;
