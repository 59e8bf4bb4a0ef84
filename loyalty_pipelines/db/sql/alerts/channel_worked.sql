-- A channel took a message. Repeating it moves the instant. Key: alert_channels_pkey.
INSERT INTO loyalty.alert_channels AS c (channel, succeeded_at, error)
VALUES (:channel, now(), :error)
ON CONFLICT (channel) DO UPDATE SET
    succeeded_at = now(), failing_since = NULL, failures = 0, error = excluded.error, next_try_at = NULL;
