-- A problem starts. One that is open under this name stays as it is: repeating it adds none. Index alert_problems_open.
INSERT INTO loyalty.alert_problems
(name, source, severity, state, title, detail, merchants, merchants_total, numbers, runbook, place, started_at, returns)
VALUES
(
    :name, :source, :severity, :state, :title, :detail, CAST(:merchants AS text[]), :merchants_total,
    CAST(:numbers AS jsonb), :runbook, :place, :started_at, :returns
)
ON CONFLICT (name) WHERE ended_at IS NULL DO NOTHING;
