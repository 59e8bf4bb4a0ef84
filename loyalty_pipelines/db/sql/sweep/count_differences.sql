-- How many orders of the merchant differ and by how many points, of those that nobody has touched for :untouched_for
-- (an order that was paid a second ago is not late). Orders to be queued are counted apart. Reads only.
SELECT
    count(*) FILTER (WHERE d.outcome = 'earning') AS orders_paid,
    coalesce(sum(d.points_missing) FILTER (WHERE d.outcome = 'earning'), 0) AS points_paid,
    count(*) FILTER (WHERE d.outcome IN ('unpaid', 'no_programme')) AS orders_unpaid,
    coalesce(sum(d.points_missing) FILTER (WHERE d.outcome IN ('unpaid', 'no_programme')), 0) AS points_unpaid,
    count(*) FILTER (WHERE d.outcome NOT IN ('earning', 'unpaid', 'no_programme')) AS orders_undecided,
    (array_agg(d.order_id ORDER BY d.paid_at))[1:5] AS examples
FROM loyalty.order_differences(
    CAST(:merchant_id AS text), CAST(:paid_from AS timestamptz), CAST(:paid_to AS timestamptz)
) AS d
WHERE
    (
        CAST(:untouched_for AS interval) IS NULL
        OR coalesce(greatest(d.paid_at, d.updated_at), '-infinity') < now() - CAST(:untouched_for AS interval)
    )
    -- An order that is shown twice differs from the ledger for ever; it waits in the queue.
    AND d.queued_reason IS DISTINCT FROM 'order_ambiguous';
