-- The health of all channels that were tried; `is_waiting`: not to be tried yet. Reads a row per channel.
SELECT
    c.channel,
    c.succeeded_at,
    c.failed_at,
    c.failing_since,
    c.failures,
    c.error,
    c.next_try_at,
    coalesce(c.next_try_at > now(), false) AS is_waiting
FROM loyalty.alert_channels AS c
ORDER BY c.channel;
