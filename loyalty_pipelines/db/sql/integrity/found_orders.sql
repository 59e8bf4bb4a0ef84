-- Orders and redemptions that were found wrong before: what was put right is closed. Index findings_open.
INSERT INTO integrity_orders (merchant_id, reference_type, order_id)
SELECT
    f.merchant_id,
    f.object_type,
    f.object_id
FROM loyalty.findings AS f
WHERE
    f.closed_at IS NULL
    AND f.subject = 'integrity'
    AND f.object_type IN ('order', 'redemption')
    AND (CAST(:merchant_ids AS text[]) IS NULL OR f.merchant_id = ANY(CAST(:merchant_ids AS text[])))
GROUP BY f.merchant_id, f.object_type, f.object_id;
