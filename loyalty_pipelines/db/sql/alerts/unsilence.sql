-- Ends the silences over a problem that hold now. Repeating it ends none. Index alert_silences_by_name.
UPDATE loyalty.alert_silences
SET ended_at = now(), ended_by = :actor
WHERE name = :name AND ended_at IS NULL AND until_at > now();
