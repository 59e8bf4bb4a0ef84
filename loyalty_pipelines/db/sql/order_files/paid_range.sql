-- The first and last payment of the file. Reads the stage.
SELECT
    min(l.paid_at) AS first_paid_at,
    max(l.paid_at) AS last_paid_at
FROM order_file_lines AS l
WHERE l.status IN ('paid', 'partially_refunded');
