-- The newest entries of each merchant, up to :row_limit of the last :days days, the newest first. Reads only;
-- ledger_entries_by_time, so that quiet years cost nothing.
SELECT
    e.merchant_id,
    e.recorded_at,
    e.occurred_at,
    a.customer_id,
    e.account_id,
    e.seq,
    e.kind,
    e.points,
    e.balance_before,
    e.balance_after,
    e.stamps,
    e.reference_type,
    e.reference_id,
    e.actor,
    e.run_id
FROM (
    SELECT
        l.*,
        row_number() OVER (
            PARTITION BY l.merchant_id ORDER BY l.recorded_at DESC, l.account_id DESC, l.seq DESC
        ) AS place
    FROM loyalty.ledger_entries AS l
    WHERE
        l.recorded_at > now() - make_interval(days => CAST(:days AS integer))
        AND l.merchant_id = ANY(CAST(:merchant_ids AS text[]))
) AS e
INNER JOIN loyalty.accounts AS a ON a.merchant_id = e.merchant_id AND a.account_id = e.account_id
WHERE e.place <= CAST(:row_limit AS bigint)
ORDER BY e.merchant_id, e.place;
