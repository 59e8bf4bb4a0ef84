-- Orders that belong to another customer than one who has their points: adds the missing line of the new customer.
-- Run only when there are such orders; renumber_moved_lines.sql follows.
INSERT INTO award_lines
SELECT DISTINCT ON (l.order_id)
    l.order_id,
    l.order_customer_id,
    l.order_customer_id,
    CAST(NULL AS bigint),
    l.outcome,
    l.detail,
    l.order_target_points,
    l.order_target_stamps,
    l.order_target_points,
    l.order_target_stamps,
    l.program_version,
    l.paid_at,
    l.changed_at,
    false,
    0,
    0,
    0,
    0,
    l.order_target_points,
    0
FROM award_lines AS l
WHERE
    l.outcome = 'earning'
    AND NOT EXISTS (
        SELECT 1
        FROM award_lines AS own
        WHERE own.order_id = l.order_id AND own.customer_id = own.order_customer_id
    )
ORDER BY l.order_id;
