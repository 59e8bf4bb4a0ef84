-- All payments of those subscriptions that a class may say something about, so that it reads those few instead of all.
-- Gone at the end of the transaction. Reads all payments once.
CREATE TEMPORARY TABLE watched_payments ON COMMIT DROP AS
SELECT p.*
FROM checked_payments AS p
INNER JOIN (
    SELECT o.subscription_key FROM odd_payments AS o
    UNION
    SELECT u.subscription_key FROM uncovered_subscriptions AS u
    UNION
    SELECT s.subscription_key FROM side_by_side AS s
) AS watched ON watched.subscription_key = p.subscription_key;
