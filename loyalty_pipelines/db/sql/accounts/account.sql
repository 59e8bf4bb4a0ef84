-- One account. Points past expires_at can't be spent, even before the expiry job has run. Reads only;
-- accounts_one_per_customer.
SELECT
    a.merchant_id,
    a.customer_id,
    a.account_id,
    a.balance,
    a.held,
    CASE WHEN a.expires_at <= now() THEN 0 ELSE greatest(a.balance - a.held, 0) END AS spendable,
    a.stamp_count,
    a.next_seq - 1 AS entries,
    a.is_active,
    a.last_activity_at,
    a.expires_at,
    a.parked_reason
FROM loyalty.accounts AS a
WHERE a.merchant_id = :merchant_id AND a.customer_id = :customer_id;
