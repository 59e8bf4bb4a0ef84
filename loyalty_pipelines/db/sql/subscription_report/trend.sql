-- What was open and not accepted at each of these instants, by merchant and currency, by what findings say of themselves
-- now: of each object the largest amount. Indexes findings_open, findings_closed.
WITH known AS MATERIALIZED (
    SELECT
        f.merchant_id,
        f.currency,
        f.object_type,
        f.object_id,
        f.severity,
        f.amount_at_risk,
        f.first_seen_at,
        least(f.closed_at, f.accepted_at) AS ended_at
    FROM loyalty.findings AS f
    WHERE
        f.subject = :subject
        AND (f.closed_at IS NULL OR f.closed_at > CAST(:since AS timestamptz))
        AND (CAST(:merchant_id AS text) IS NULL OR f.merchant_id = CAST(:merchant_id AS text))
)

SELECT
    o.merchant_id,
    o.currency,
    o.number,
    sum(o.errors) AS errors,
    sum(o.warnings) AS warnings,
    sum(o.amount) AS amount
FROM (
    SELECT
        k.merchant_id,
        k.currency,
        i.number,
        count(*) FILTER (WHERE k.severity = 'error') AS errors,
        count(*) FILTER (WHERE k.severity = 'warning') AS warnings,
        max(k.amount_at_risk) AS amount
    FROM known AS k
    INNER JOIN unnest(CAST(:instants AS timestamptz[])) WITH ORDINALITY AS i (instant, number)
        ON k.first_seen_at <= i.instant AND (k.ended_at IS NULL OR k.ended_at > i.instant)
    GROUP BY k.merchant_id, k.currency, k.object_type, k.object_id, i.number
) AS o
GROUP BY o.merchant_id, o.currency, o.number
ORDER BY o.merchant_id, o.currency, o.number;
