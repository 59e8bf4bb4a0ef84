-- The account of exactly this customer, also when it was merged into another one: its own history is asked for. Reads
-- only; accounts_one_per_customer, merged_customers_pkey, ledger_entries_pkey.
SELECT
    a.account_id,
    a.balance,
    a.held,
    loyalty.spendable(a.balance, a.held, a.expires_at, now()) AS spendable,
    a.expires_at,
    a.is_active,
    (
        SELECT e.recorded_at
        FROM loyalty.ledger_entries AS e
        WHERE e.merchant_id = a.merchant_id AND e.account_id = a.account_id AND e.seq = 1
    ) AS first_recorded_at,
    now() AS read_at
FROM loyalty.accounts AS a
WHERE a.merchant_id = :merchant_id AND a.customer_id = :customer_id;
