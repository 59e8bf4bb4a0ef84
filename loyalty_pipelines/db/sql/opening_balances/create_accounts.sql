-- Makes the missing accounts, those without points, too. Safe to repeat; accounts_one_per_customer.
INSERT INTO loyalty.accounts (merchant_id, customer_id, last_activity_at, expires_at)
SELECT
    b.merchant_id,
    b.customer_id,
    b.active_at,
    b.own_expires_at
FROM opening_balances AS b
WHERE b.is_account_new
ORDER BY b.merchant_id, b.customer_id
ON CONFLICT (merchant_id, customer_id) DO NOTHING;
