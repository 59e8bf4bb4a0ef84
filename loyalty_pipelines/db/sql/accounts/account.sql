-- One account; of a customer who was merged into another one, that one's. Parked: a queue item of the customer is not
-- tried any more. Reads only; accounts_one_per_customer, reconciliation_queue_parked.
SELECT
    a.merchant_id,
    a.customer_id,
    a.account_id,
    a.balance,
    a.held,
    loyalty.spendable(a.balance, a.held, a.expires_at, now()) AS spendable,
    a.stamp_count,
    a.next_seq - 1 AS entries,
    a.is_active,
    a.last_activity_at,
    a.expires_at,
    (
        SELECT format('item %s of the queue: %s', q.queue_id, q.reason)
        FROM loyalty.reconciliation_queue AS q
        WHERE
            q.merchant_id = a.merchant_id
            AND q.customer_id = a.customer_id
            AND q.parked_at IS NOT NULL
            AND q.resolved_at IS NULL
        ORDER BY q.queue_id
        LIMIT 1
    ) AS parked_reason
FROM loyalty.accounts AS a
WHERE a.merchant_id = :merchant_id AND a.customer_id = loyalty.customer_in_ledger(:merchant_id, :customer_id);
