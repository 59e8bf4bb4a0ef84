-- Continues the numbering of an order's entries over all accounts that have lines of it, those that change first and
-- the former customer before the new one: the unique key on the reference would refuse two entries with one number.
UPDATE award_lines AS l
SET last_reference_seq = numbered.last_reference_seq
FROM (
    SELECT
        one.order_id,
        one.customer_id,
        max(one.last_reference_seq) OVER (PARTITION BY one.order_id)
        + row_number() OVER (
            PARTITION BY one.order_id
            ORDER BY
                one.target_points = one.in_force_points - one.waived_points
                AND one.target_stamps = one.stamps_in_force,
                one.customer_id = one.order_customer_id
        ) - 1 AS last_reference_seq
    FROM award_lines AS one
    WHERE one.outcome = 'earning'
) AS numbered
WHERE
    l.order_id = numbered.order_id
    AND l.customer_id = numbered.customer_id
    AND EXISTS (
        SELECT 1
        FROM award_lines AS former
        WHERE former.order_id = l.order_id AND former.customer_id <> former.order_customer_id
    );
