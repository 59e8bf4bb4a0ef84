-- A problem is not to be sent for some time. Repeating it adds another silence beside the first; the later end holds.
INSERT INTO loyalty.alert_silences (name, reason, actor, until_at)
VALUES (:name, :reason, :actor, now() + CAST(:time AS interval))
RETURNING silence_id, name, reason, actor, created_at, until_at, ended_at, ended_by;
