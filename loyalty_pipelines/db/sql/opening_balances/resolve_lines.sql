-- Puts beside each line what the ledger has of it, and when its points would expire; gone at the end of the transaction.
-- Under the merchants' award locks, so that no merge and no other import comes between this and the writing. Indexes
-- accounts_one_per_customer, merged_customers_pkey, ledger_entries_reference_once.
CREATE TEMPORARY TABLE opening_balances ON COMMIT DROP AS
WITH terms AS MATERIALIZED (
    SELECT
        m.merchant_id,
        EXISTS(SELECT 1 FROM loyalty_source.merchants AS s WHERE s.merchant_id = m.merchant_id) AS is_merchant_known,
        t.is_program_active,
        t.points_expiration_days,
        CASE WHEN t.is_timezone_usable THEN t.timezone ELSE 'UTC' END AS timezone
    FROM (SELECT DISTINCT l.merchant_id FROM opening_lines AS l) AS m
    CROSS JOIN LATERAL loyalty.merchant_terms(m.merchant_id) AS t
)

SELECT
    l.line,
    l.merchant_id,
    l.customer_id,
    l.points,
    resolved.active_at,
    terms.is_merchant_known,
    terms.is_program_active,
    loyalty.expiry_instant(resolved.active_at, terms.points_expiration_days, terms.timezone) AS own_expires_at,
    -- A later activity that the account has had already counts.
    a.last_activity_at >= resolved.active_at AS is_account_later,
    -- One whose empty balance passed its date has none: what comes late has the date of the last activity.
    coalesce(
        a.expires_at, loyalty.expiry_instant(a.last_activity_at, terms.points_expiration_days, terms.timezone)
    ) AS account_expires_at,
    terms.points_expiration_days,
    terms.timezone,
    a.account_id IS NULL AS is_account_new,
    e.points AS opening_points,
    m.into_customer_id,
    min(l.line) OVER (PARTITION BY l.merchant_id) AS first_line_of_merchant,
    min(l.line) OVER (PARTITION BY l.merchant_id, l.customer_id) AS first_line
FROM opening_lines AS l
INNER JOIN terms ON terms.merchant_id = l.merchant_id
LEFT JOIN loyalty.accounts AS a ON a.merchant_id = l.merchant_id AND a.customer_id = l.customer_id
LEFT JOIN loyalty.merged_customers AS m ON m.merchant_id = l.merchant_id AND m.customer_id = l.customer_id
LEFT JOIN loyalty.ledger_entries AS e
    ON
        e.merchant_id = l.merchant_id
        AND e.reference_type = 'opening'
        AND e.reference_id = l.customer_id
        AND e.reference_seq = 1
CROSS JOIN LATERAL (
    SELECT coalesce(l.active_at, l.local_active_at AT TIME ZONE terms.timezone, now()) AS active_at
) AS resolved;
