-- Which merchants have items that a drain would try, those without a known merchant ('') first, and the instant as of
-- which they are due. Not tried: what waits for its time, what is parked or of a customer with a parked item, and
-- orders whose id quarantine_order.sql has shortened (the shop knows them by their whole id only; the sweep finds them).
-- Reads only; reconciliation_queue_due, reconciliation_queue_parked.
SELECT
    q.merchant_id,
    now() AS as_of
FROM loyalty.reconciliation_queue AS q
WHERE
    q.resolved_at IS NULL
    AND q.parked_at IS NULL
    AND q.next_try_at <= now()
    AND NOT (q.operation = 'award' AND q.reason = 'database_error' AND q.order_id LIKE '% ... (md5 %)')
    AND NOT EXISTS (
        SELECT 1
        FROM loyalty.reconciliation_queue AS p
        WHERE
            p.merchant_id = q.merchant_id
            AND p.customer_id = q.customer_id
            AND p.resolved_at IS NULL
            AND p.parked_at IS NOT NULL
    )
GROUP BY q.merchant_id
ORDER BY q.merchant_id;
