-- Open findings of severity error that nobody accepted, by proof. Reads only. Index findings_open.
SELECT
    f.subject,
    count(*) AS findings,
    count(DISTINCT f.merchant_id) AS merchants,
    min(f.first_seen_at) AS oldest_at
FROM loyalty.findings AS f
WHERE f.closed_at IS NULL AND f.accepted_at IS NULL AND f.severity = 'error'
GROUP BY f.subject
ORDER BY f.subject;
