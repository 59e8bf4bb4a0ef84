-- What the open findings of these merchants (or of all) cost that nobody has accepted, by currency: one cause may be several
-- findings of one object, so of each object the largest counts. A currency in which there were findings before has a row,
-- too: 0. Index findings_open; the closed ones, which get more for ever, are not read: from currency to currency by index
-- findings_currencies.
WITH RECURSIVE known AS (
    (
        SELECT
            f.merchant_id,
            coalesce(f.currency, '') AS currency
        FROM loyalty.findings AS f
        WHERE f.subject = :subject
        ORDER BY f.merchant_id, coalesce(f.currency, '')
        LIMIT 1
    )
    UNION ALL
    SELECT
        n.merchant_id,
        n.currency
    FROM known AS k
    CROSS JOIN LATERAL (
        SELECT
            f.merchant_id,
            coalesce(f.currency, '') AS currency
        FROM loyalty.findings AS f
        WHERE f.subject = :subject AND (f.merchant_id, coalesce(f.currency, '')) > (k.merchant_id, k.currency)
        ORDER BY f.merchant_id, coalesce(f.currency, '')
        LIMIT 1
    ) AS n
),

costs AS (
    SELECT
        o.merchant_id,
        o.currency,
        sum(o.points) AS points,
        sum(o.amount) AS amount
    FROM (
        SELECT
            f.merchant_id,
            coalesce(f.currency, '') AS currency,
            max(abs(f.points_difference)) AS points,
            max(f.amount_at_risk) AS amount
        FROM loyalty.findings AS f
        WHERE f.subject = :subject AND f.closed_at IS NULL AND f.accepted_at IS NULL
        GROUP BY f.merchant_id, coalesce(f.currency, ''), f.object_type, f.object_id
    ) AS o
    GROUP BY o.merchant_id, o.currency
)

SELECT
    k.merchant_id,
    nullif(k.currency, '') AS currency,
    coalesce(c.points, 0) AS points,
    coalesce(c.amount, 0) AS amount
FROM known AS k
LEFT JOIN costs AS c ON c.merchant_id = k.merchant_id AND c.currency = k.currency
WHERE CAST(:merchant_ids AS text[]) IS NULL OR k.merchant_id = ANY(CAST(:merchant_ids AS text[]))
ORDER BY k.merchant_id, currency;
