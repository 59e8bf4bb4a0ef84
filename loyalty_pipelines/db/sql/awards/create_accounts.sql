-- Makes the missing accounts before they are locked: a row that isn't there can't be locked, and two processes would
-- both see an empty one. Safe to repeat; index accounts_one_per_customer. Returns those that it has made: one that a
-- checkout made at the same time is that checkout's to enrol.
INSERT INTO loyalty.accounts (merchant_id, customer_id)
SELECT
    :merchant_id,
    newcomers.customer_id
FROM (
    SELECT DISTINCT l.customer_id
    FROM award_lines AS l
    WHERE l.outcome = 'earning' AND NOT l.is_tracked
) AS newcomers
WHERE
    NOT EXISTS (
        SELECT 1
        FROM loyalty.accounts AS a
        WHERE a.merchant_id = :merchant_id AND a.customer_id = newcomers.customer_id
    )
ORDER BY newcomers.customer_id
ON CONFLICT (merchant_id, customer_id) DO NOTHING
RETURNING account_id, customer_id;
