-- A channel did not take a message: it is tried again later, each time after twice as long. Repeating it counts one more.
-- Key: alert_channels_pkey.
INSERT INTO loyalty.alert_channels AS c (channel, failed_at, failing_since, failures, error, next_try_at)
VALUES (:channel, now(), now(), 1, :error, now() + CAST(:first_wait AS interval))
ON CONFLICT (channel) DO UPDATE SET
    failed_at = now(),
    failing_since = coalesce(c.failing_since, now()),
    failures = c.failures + 1,
    error = excluded.error,
    next_try_at = now() + least(CAST(:longest_wait AS interval), CAST(:first_wait AS interval) * 2 ^ least(c.failures, 20));
