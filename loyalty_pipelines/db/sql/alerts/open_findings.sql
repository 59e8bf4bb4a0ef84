-- Open findings of severity error by class, the class with the most first. Reads only the open ones. Index findings_open.
SELECT
    f.subject,
    f.class AS kind,
    count(*) AS findings,
    count(DISTINCT f.merchant_id) AS merchants,
    min(f.first_seen_at) AS oldest_at
FROM loyalty.findings AS f
WHERE f.closed_at IS NULL AND f.accepted_at IS NULL AND f.severity = 'error'
GROUP BY f.subject, f.class
ORDER BY findings DESC, f.subject, f.class;
