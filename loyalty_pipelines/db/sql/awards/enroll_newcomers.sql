-- Enrols the accounts that the batch has made, each as of its first paid order. Run only when there are some; before the
-- awards, so that the welcome bonus comes first. Once per account: see loyalty.enroll_accounts. Index accounts_pkey.
SELECT
    e.points_in_entries,
    e.points_in_balances
FROM (
    SELECT
        array_agg(f.account_id ORDER BY f.account_id) AS account_ids,
        array_agg(f.paid_at ORDER BY f.account_id) AS paid_at
    FROM (
        SELECT
            made.account_id,
            min(l.paid_at) AS paid_at
        FROM unnest(CAST(:account_ids AS bigint[]), CAST(:customer_ids AS text[])) AS made (account_id, customer_id)
        INNER JOIN award_lines AS l ON l.customer_id = made.customer_id
        WHERE l.outcome = 'earning'
        GROUP BY made.account_id
    ) AS f
) AS newcomers
CROSS JOIN LATERAL loyalty.enroll_accounts(
    :merchant_id, newcomers.account_ids, newcomers.paid_at, :actor, :run_id
) AS e;
