-- Which of these findings are open, and accepted by nobody. Only reads. Index findings_by_number.
SELECT f.finding_id
FROM loyalty.findings AS f
WHERE f.finding_id = ANY(CAST(:finding_ids AS bigint[])) AND f.closed_at IS NULL AND f.accepted_at IS NULL;
