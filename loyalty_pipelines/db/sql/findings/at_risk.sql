-- What the open findings of these merchants (or of all) cost that nobody has accepted, by currency: one cause may be several
-- findings of one object, so of each object the largest counts. A currency in which there were findings before has a row,
-- too: 0. Reads the findings of these merchants once, closed ones too; findings_pkey.
SELECT
    o.merchant_id,
    o.currency,
    sum(coalesce(o.points, 0)) AS points,
    sum(coalesce(o.amount, 0)) AS amount
FROM (
    SELECT
        f.merchant_id,
        f.currency,
        max(abs(f.points_difference)) FILTER (WHERE f.closed_at IS NULL AND f.accepted_at IS NULL) AS points,
        max(f.amount_at_risk) FILTER (WHERE f.closed_at IS NULL AND f.accepted_at IS NULL) AS amount
    FROM loyalty.findings AS f
    WHERE
        f.subject = :subject
        AND (CAST(:merchant_ids AS text[]) IS NULL OR f.merchant_id = ANY(CAST(:merchant_ids AS text[])))
    GROUP BY f.merchant_id, f.currency, f.object_type, f.object_id
) AS o
GROUP BY o.merchant_id, o.currency
ORDER BY o.merchant_id, o.currency;
