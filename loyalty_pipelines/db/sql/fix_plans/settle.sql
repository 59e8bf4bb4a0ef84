-- Plans that can't be applied any more: too old, or their finding is closed or accepted. Safe to repeat. Index
-- fix_plans_once.
UPDATE loyalty.fix_plans AS p
SET
    status = CASE WHEN p.expires_at <= now() THEN 'expired' ELSE 'stale' END,
    failure = CASE
        WHEN p.expires_at <= now() THEN coalesce(p.failure, 'nobody applied it in time')
        ELSE 'its finding is closed or accepted by now'
    END
WHERE
    p.status IN ('planned', 'approved', 'failed')
    AND (CAST(:merchant_ids AS text[]) IS NULL OR p.merchant_id = ANY(CAST(:merchant_ids AS text[])))
    AND (
        p.expires_at <= now()
        OR NOT EXISTS (
            SELECT 1
            FROM loyalty.findings AS f
            WHERE
                f.merchant_id = p.merchant_id
                AND f.finding_id = p.finding_id
                AND f.closed_at IS NULL
                AND f.accepted_at IS NULL
        )
    );
