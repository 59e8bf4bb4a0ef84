-- What the shop and the ledger say now of the mails that this sender has leased; the address is read here, when it is
-- needed, and kept nowhere. A mail that changed hands meanwhile is left out. Reads only; notifications_pkey, the shop's
-- customers and accounts_one_per_customer by key.
SELECT
    n.notification_id,
    m.name AS merchant_name,
    coalesce(m.timezone, 'UTC') AS merchant_timezone,
    m.locale AS merchant_locale,
    c.is_active AS is_customer_active,
    c.email AS customer_email,
    c.name AS customer_name,
    c.locale AS customer_locale,
    c.store_id,
    a.is_active AS is_account_active,
    a.expires_at,
    a.warned_for,
    -- The key of the mail that names the account's date, also where the merchant's clock has changed meanwhile.
    loyalty.warning_key(a.account_id, a.expires_at, terms.timezone) AS warned_key,
    terms.lead_days IS NOT NULL AS is_expiring,
    loyalty.local_midnight(now(), terms.lead_days - 1, terms.timezone) AS least_expires_at,
    n.waits_since,
    now() AS as_of
FROM unnest(
    CAST(:notification_ids AS bigint[]), CAST(:dedupe_keys AS text[]), CAST(:customer_ids AS text[])
) AS mine (notification_id, dedupe_key, customer_id)
INNER JOIN loyalty.notifications AS n
    ON
        n.merchant_id = :merchant_id
        AND n.notification_id = mine.notification_id
        AND n.dedupe_key = mine.dedupe_key
        AND n.status = 'pending'
        AND n.leased_until = :leased_until
LEFT JOIN (
    SELECT
        CASE WHEN t.is_timezone_usable THEN t.timezone ELSE 'UTC' END AS timezone,
        CASE
            WHEN t.is_program_active THEN loyalty.warning_lead(t.points_expiration_days, t.warning_days)
        END AS lead_days
    FROM loyalty.merchant_terms(:merchant_id) AS t
) AS terms ON true
LEFT JOIN loyalty_source.merchants AS m ON m.merchant_id = :merchant_id
LEFT JOIN loyalty_source.customers AS c
    ON c.merchant_id = :merchant_id AND c.customer_id = mine.customer_id COLLATE "C"
LEFT JOIN loyalty.accounts AS a ON a.merchant_id = :merchant_id AND a.customer_id = mine.customer_id COLLATE "C";
