-- How many of the demo's mails wait and how many were sent. Reads only.
SELECT
    count(*) FILTER (WHERE n.status = 'pending') AS waiting,
    count(*) FILTER (WHERE n.status = 'sent') AS sent
FROM loyalty.notifications AS n;
