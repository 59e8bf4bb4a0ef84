-- Sets the next try of a claimed mail: it doubles with every try, with some chance in it. Repeating it finds the lease
-- gone. A mail that got another date meanwhile is another mail and stays. Index notifications_pkey.
UPDATE loyalty.notifications AS n
SET
    attempts = n.attempts + CAST(:tries AS integer),
    leased_until = NULL,
    next_attempt_at = now() + loyalty.wait_before_try(
        n.attempts + 1, CAST(:first_wait AS interval), CAST(:longest_wait AS interval)
    ),
    last_error = :error
WHERE
    n.merchant_id = :merchant_id
    AND n.notification_id = :notification_id
    AND n.dedupe_key = :dedupe_key
    AND n.status = 'pending'
    AND n.leased_until = :leased_until;
