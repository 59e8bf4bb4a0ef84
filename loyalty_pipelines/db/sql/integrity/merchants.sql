-- The merchants that have or had accounts or entries, whether the shop lists them or not, and their marks. A mark ahead of
-- the server's own transactions is of another server, from whose backup this database was made: it counts as none, and so
-- does that of a merchant whose last proof failed: what is new says nothing of what made it fail. Skips along
-- ledger_entries_pkey, for entries whose accounts are gone; findings_open.
WITH RECURSIVE with_entries AS (
    (SELECT e.merchant_id FROM loyalty.ledger_entries AS e ORDER BY e.merchant_id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT e.merchant_id
        FROM loyalty.ledger_entries AS e
        WHERE e.merchant_id > w.merchant_id
        ORDER BY e.merchant_id
        LIMIT 1
    )
    FROM with_entries AS w
    WHERE w.merchant_id IS NOT NULL
)

SELECT
    m.merchant_id,
    coalesce(marks.verified_until <= pg_snapshot_xmax(pg_current_snapshot()), false)
    AND NOT EXISTS (
        SELECT 1
        FROM loyalty.findings AS f
        WHERE
            f.merchant_id = m.merchant_id
            AND f.subject = 'integrity'
            AND f.class = 'check_failed'
            AND f.closed_at IS NULL
    ) AS is_marked
FROM (
    SELECT a.merchant_id FROM loyalty.account_merchants AS a
    UNION
    SELECT with_entries.merchant_id FROM with_entries
    UNION
    SELECT k.merchant_id FROM loyalty.integrity_marks AS k
) AS m
LEFT JOIN loyalty.integrity_marks AS marks ON marks.merchant_id = m.merchant_id
WHERE
    m.merchant_id IS NOT NULL
    AND (CAST(:merchant_ids AS text[]) IS NULL OR m.merchant_id = ANY(CAST(:merchant_ids AS text[])))
ORDER BY m.merchant_id;
