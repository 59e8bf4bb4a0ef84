-- The mail of a day was sent (:failure is NULL), or was not, so that the next run tries again. Safe to repeat;
-- subscription_mails_pkey.
UPDATE loyalty.subscription_mails AS m
SET
    leased_until = NULL,
    sent_at = CASE WHEN CAST(:failure AS text) IS NULL THEN now() END,
    failure = CAST(:failure AS text)
WHERE m.sent_on = :sent_on AND m.sent_at IS NULL;
