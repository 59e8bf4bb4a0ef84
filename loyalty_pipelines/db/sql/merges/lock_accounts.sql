-- Locks the accounts of both customers in key order, those that there are. Under the merchant's award lock; reads again
-- what they are once they are locked. accounts_one_per_customer.
SELECT
    a.account_id,
    a.customer_id,
    a.balance,
    a.held,
    a.stamp_count,
    a.last_activity_at,
    a.expires_at,
    coalesce(a.expires_at <= now() AND a.balance > a.held, false) AS is_due,
    a.is_active
FROM loyalty.accounts AS a
WHERE a.merchant_id = :merchant_id AND a.customer_id IN (:customer_id, :into_customer_id)
ORDER BY a.account_id
FOR NO KEY UPDATE;
