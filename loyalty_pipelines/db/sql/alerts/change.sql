-- What is seen of a problem now; what was sent about it stays. The observer's lock keeps others out. Repeating it
-- changes nothing. Key: alert_problems_pkey.
UPDATE loyalty.alert_problems
SET
    severity = :severity,
    state = :state,
    title = :title,
    detail = :detail,
    merchants = CAST(:merchants AS text[]),
    merchants_total = :merchants_total,
    numbers = CAST(:numbers AS jsonb),
    runbook = :runbook,
    place = :place,
    gone_since = :gone_since,
    returns = :returns,
    ended_at = :ended_at
WHERE problem_id = :problem_id;
