-- What expired in the last :days days, was not given back, and whose warning was not delivered; and, apart, how many
-- accounts of customers whom no mail reaches. Warned is who had the mail of that account and date; where no key fits,
-- because the merchant's time zone has changed, or because the mail went to a customer who was merged into this one, the
-- mail that named the instant. LIMIT keeps what only the few without a delivered mail are asked from being joined to all.
-- Reads only; ledger_entries_by_time, notifications_once_per_cause, ledger_entries_reference_once, accounts_pkey. 2.5 s
-- where 1,000,000 accounts expired.
WITH expired AS (
    SELECT
        e.merchant_id,
        e.account_id,
        e.reference_id,
        -e.points AS points,
        e.run_id,
        e.occurred_at,
        e.recorded_at,
        n.status
    FROM loyalty.ledger_entries AS e
    LEFT JOIN loyalty.expiry_terms AS t ON t.merchant_id = e.merchant_id
    LEFT JOIN loyalty.notifications AS n
        ON
            n.merchant_id = e.merchant_id
            AND n.dedupe_key = loyalty.warning_key(e.account_id, e.occurred_at, coalesce(t.timezone, 'UTC'))
    WHERE
        e.recorded_at > now() - make_interval(days => CAST(:days AS integer))
        AND e.kind = 'expired'
        AND coalesce(n.status <> 'sent', true)
),

judged AS (
    SELECT
        e.merchant_id,
        e.points,
        e.run_id,
        e.recorded_at,
        coalesce(named.status, e.status, 'none') AS status
    FROM expired AS e
    LEFT JOIN LATERAL (
        SELECT n.status
        FROM (
            SELECT e.account_id
            UNION ALL
            SELECT f.account_id
            FROM loyalty.accounts AS a
            INNER JOIN loyalty.merged_customers AS m
                ON m.merchant_id = a.merchant_id AND m.into_customer_id = a.customer_id
            INNER JOIN loyalty.accounts AS f ON f.merchant_id = m.merchant_id AND f.customer_id = m.customer_id
            WHERE a.merchant_id = e.merchant_id AND a.account_id = e.account_id
        ) AS own
        INNER JOIN loyalty.notifications AS n
            ON
                n.merchant_id = e.merchant_id
                -- '0' is the character after '/'.
                AND n.dedupe_key > 'expiring/' || own.account_id || '/'
                AND n.dedupe_key < 'expiring/' || own.account_id || '0'
        WHERE
            coalesce(e.status <> 'parked', true)
            AND n.status IN ('sent', 'parked')
            AND CAST(n.payload ->> 'expires_at' AS timestamptz) = e.occurred_at
        ORDER BY n.status DESC
        LIMIT 1
    ) AS named ON true
    LEFT JOIN LATERAL (
        SELECT u.seq
        FROM loyalty.ledger_entries AS u
        WHERE
            u.merchant_id = e.merchant_id
            AND u.reference_type = 'expiry'
            AND u.reference_id = e.reference_id
            AND u.reference_seq = 2
        LIMIT 1
    ) AS undone ON true
    WHERE undone.seq IS NULL
)

SELECT
    j.merchant_id,
    count(*) FILTER (WHERE j.status <> 'parked') AS accounts,
    coalesce(sum(j.points) FILTER (WHERE j.status <> 'parked'), 0) AS points,
    count(*) FILTER (WHERE j.status = 'parked') AS accounts_unreachable,
    (array_agg(j.run_id ORDER BY j.recorded_at DESC) FILTER (WHERE j.status <> 'parked'))[1] AS run_id
FROM judged AS j
WHERE j.status <> 'sent'
GROUP BY j.merchant_id
ORDER BY accounts DESC, j.merchant_id;
