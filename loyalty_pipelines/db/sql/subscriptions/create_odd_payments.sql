-- The payments of which a class may say something, one by one: all but the plain ones. Gone at the end of the transaction.
CREATE TEMPORARY TABLE odd_payments ON COMMIT DROP AS
SELECT p.*
FROM checked_payments AS p
WHERE NOT p.is_plain;
