-- Findings of dates and warnings at merchants whose dates wait for their next night: nobody has looked, so they stay open as
-- they are. Index findings_open.
INSERT INTO found (merchant_id, class, object_type, object_id, points_difference, evidence)
SELECT
    f.merchant_id,
    f.class,
    f.object_type,
    f.object_id,
    f.points_difference,
    f.evidence
FROM loyalty.findings AS f
WHERE
    f.closed_at IS NULL
    AND f.subject = 'integrity'
    AND f.object_type = 'account'
    AND f.class IN ('date_missing', 'date_too_early', 'date_too_late', 'mail_missing')
    AND (CAST(:merchant_ids AS text[]) IS NULL OR f.merchant_id = ANY(CAST(:merchant_ids AS text[])))
    AND f.merchant_id NOT IN (SELECT t.merchant_id FROM loyalty.settled_expiry_terms AS t);
