-- Up to where the last poll of subscriptions read; now before the first one: what is older is the full check's.
SELECT coalesce(max(c.polled_until), now())
FROM loyalty.capture_cursors AS c
WHERE c.name = 'subscriptions';
