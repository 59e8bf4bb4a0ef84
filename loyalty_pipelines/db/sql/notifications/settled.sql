-- What became of the mails that were settled in the last :hours hours, by status and reason, the most frequent first.
-- Reads only; index notifications_settled.
SELECT
    n.status,
    CASE WHEN n.status <> 'sent' THEN left(n.last_error, 100) END AS reason,
    count(*) AS mails
FROM loyalty.notifications AS n
WHERE n.settled_at > now() - make_interval(hours => CAST(:hours AS integer))
GROUP BY n.status, reason
ORDER BY mails DESC, n.status, reason;
