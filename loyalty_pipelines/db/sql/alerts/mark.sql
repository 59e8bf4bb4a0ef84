-- A channel took what was said about problems: the lease ends with it. Whose lease has ended meanwhile is another sender's.
-- What was said is what was claimed, whatever the row says by now. The worst severity that was announced stays, and so do
-- the findings where none were said. Repeating it changes nothing. Key: alert_problems_pkey.
WITH sent AS (
    SELECT
        u.problem_id,
        u.event,
        u.severity,
        u.state,
        u.findings
    FROM
        unnest(
            CAST(:problem_ids AS bigint[]),
            CAST(:events AS text[]),
            CAST(:severities AS text[]),
            CAST(:states AS text[]),
            CAST(:findings AS double precision[])
        ) AS u (problem_id, event, severity, state, findings)
),

marked AS (
    UPDATE loyalty.alert_problems AS p
    SET
        leased_until = NULL,
        notified_severity = least(p.notified_severity, s.severity),
        first_notified_at = coalesce(p.first_notified_at, now()),
        last_notified_at = now(),
        last_channel = :channel,
        told_state = s.state,
        told_findings = coalesce(s.findings, p.told_findings),
        times_worse = p.times_worse + CASE s.event WHEN 'worse' THEN 1 ELSE 0 END,
        reminders = p.reminders + CASE s.event WHEN 'reminder' THEN 1 ELSE 0 END,
        unanswered = 0,
        end_notified_at = CASE s.event WHEN 'ended' THEN now() END
    FROM sent AS s
    WHERE p.problem_id = s.problem_id AND p.leased_until = :leased_until
    RETURNING p.problem_id, s.severity, s.event
)

INSERT INTO loyalty.alert_deliveries (problem_id, event, severity, channel)
SELECT
    m.problem_id,
    m.event,
    m.severity,
    :channel
FROM marked AS m
ORDER BY m.problem_id;
