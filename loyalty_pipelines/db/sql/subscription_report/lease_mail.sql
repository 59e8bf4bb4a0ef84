-- Takes the mail of a day on oneself, unless it was sent or somebody else is at it. No row: not yours. A sender that died
-- gives it back after ten minutes. Safe to repeat; subscription_mails_pkey.
INSERT INTO loyalty.subscription_mails AS m (sent_on, leased_until, run_id)
VALUES (:sent_on, now() + interval '10 minutes', :run_id)
ON CONFLICT (sent_on) DO UPDATE SET leased_until = excluded.leased_until, run_id = excluded.run_id
    WHERE m.sent_at IS NULL AND (m.leased_until IS NULL OR m.leased_until <= now())
RETURNING m.sent_on;
