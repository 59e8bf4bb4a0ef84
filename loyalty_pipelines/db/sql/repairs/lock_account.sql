-- Locks the customer's account, after a merge the survivor's; all NULL: there is none. Whether its points are past their
-- expiry, though the expiry job has not run. accounts_one_per_customer.
SELECT
    a.account_id,
    a.customer_id,
    a.balance,
    a.held,
    a.expires_at,
    coalesce(a.expires_at <= now() AND a.balance > a.held, false) AS is_due
FROM loyalty.lock_account(:merchant_id, :customer_id) AS a;
