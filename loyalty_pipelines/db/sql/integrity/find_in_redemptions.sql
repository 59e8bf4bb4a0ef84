-- Redemptions whose entries are not what their hold says: none while it is open, its points while it is captured, nothing
-- once they were given back. Whichever account has them: a merge moves the hold, not the entries. Indexes
-- ledger_entries_reference_once, holds_pkey.
INSERT INTO found (merchant_id, class, object_type, object_id, points_difference, evidence)
SELECT
    o.merchant_id,
    'redemption_differs',
    'redemption',
    o.order_id,
    e.points - wanted.points,
    jsonb_build_object(
        'hold', h.status, 'points_of_hold', h.points, 'entries_of_hold', h.last_reference_seq, 'points_in_ledger', e.points,
        'entries_in_ledger', e.entries
    )
FROM (
    SELECT DISTINCT
        i.merchant_id,
        i.order_id
    FROM integrity_orders AS i
    WHERE i.reference_type = 'redemption'
) AS o
CROSS JOIN LATERAL (
    SELECT
        coalesce(sum(l.points), 0) AS points,
        count(*) AS entries
    FROM loyalty.ledger_entries AS l
    WHERE l.merchant_id = o.merchant_id AND l.reference_type = 'redemption' AND l.reference_id = o.order_id
    OFFSET 0
) AS e
LEFT JOIN loyalty.holds AS h ON h.merchant_id = o.merchant_id AND h.order_id = o.order_id
CROSS JOIN LATERAL (SELECT CASE h.status WHEN 'captured' THEN -h.points ELSE 0 END AS points) AS wanted
WHERE e.points <> wanted.points OR e.entries <> coalesce(h.last_reference_seq, 0);
