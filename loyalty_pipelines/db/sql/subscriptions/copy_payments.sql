-- The payments of these merchants, under the name that the classes read. Gone at the end of the transaction.
CREATE TEMPORARY TABLE source_payments ON COMMIT DROP AS
SELECT v.*
FROM loyalty_source.payments AS v
INNER JOIN checked_merchants AS m ON m.merchant_id = v.merchant_id;
