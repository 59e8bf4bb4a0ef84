-- How old what is open is, by merchant and currency: of each object the largest amount, and the age of its oldest finding,
-- so that the buckets add up to the money at risk. Buckets end after 1 hour, 1 day, 7 days, 30 days. Index findings_open.
SELECT
    o.merchant_id,
    o.currency,
    o.bucket,
    sum(o.findings) AS findings,
    sum(o.amount) AS amount
FROM (
    SELECT
        f.merchant_id,
        f.currency,
        width_bucket(
            now() - min(f.first_seen_at), ARRAY[interval '1 hour', interval '1 day', interval '7 days', interval '30 days']
        ) AS bucket,
        count(*) AS findings,
        max(f.amount_at_risk) AS amount
    FROM loyalty.findings AS f
    WHERE
        f.subject = :subject
        AND f.closed_at IS NULL
        AND f.accepted_at IS NULL
        AND (CAST(:merchant_id AS text) IS NULL OR f.merchant_id = CAST(:merchant_id AS text))
    GROUP BY f.merchant_id, f.currency, f.object_type, f.object_id
) AS o
GROUP BY o.merchant_id, o.currency, o.bucket
ORDER BY o.merchant_id, o.currency, o.bucket;
