-- Orders and redemptions of the entries that are not sealed, and those that were found wrong before. Indexes
-- ledger_entries_pkey, account_seals_pkey, findings_open.
INSERT INTO integrity_orders (merchant_id, reference_type, order_id)
SELECT
    s.merchant_id,
    e.reference_type,
    e.reference_id
FROM integrity_sums AS s
LEFT JOIN loyalty.account_seals AS z ON z.merchant_id = s.merchant_id AND z.account_id = s.account_id
CROSS JOIN LATERAL (
    SELECT
        l.reference_type,
        l.reference_id
    FROM loyalty.ledger_entries AS l
    WHERE l.merchant_id = s.merchant_id AND l.account_id = s.account_id AND l.seq > coalesce(z.entries, 0)
    OFFSET 0
) AS e
WHERE e.reference_type IN ('order', 'redemption')
UNION
SELECT
    f.merchant_id,
    f.object_type,
    f.object_id
FROM loyalty.findings AS f
WHERE
    f.closed_at IS NULL
    AND f.subject = 'integrity'
    AND f.object_type IN ('order', 'redemption')
    AND (CAST(:merchant_ids AS text[]) IS NULL OR f.merchant_id = ANY(CAST(:merchant_ids AS text[])));
