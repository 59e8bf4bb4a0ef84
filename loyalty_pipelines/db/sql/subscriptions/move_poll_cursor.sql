-- Remembers how far was polled, in the transaction that noted it. Safe to repeat.
INSERT INTO loyalty.capture_cursors (name, polled_until, polled_at)
VALUES ('subscriptions', now(), now())
ON CONFLICT (name) DO UPDATE SET polled_until = excluded.polled_until, polled_at = excluded.polled_at;
