-- Redemptions whose entries are not what their hold says: none while it is open, its points while it is captured, nothing
-- once they were given back. Whichever account has them, a merge moves the hold, not the entries: but the hold is of the
-- account that its newest entry is on, or of the one that this was merged into. Where a merge was parted by hand, holds stay
-- where it has brought them. Indexes ledger_entries_reference_once, holds_pkey, accounts_pkey, accounts_one_per_customer,
-- merged_customers_pkey; for the few that are elsewhere, ledger_entries_pkey.
INSERT INTO found (merchant_id, class, object_type, object_id, points_difference, evidence)
SELECT
    o.merchant_id,
    'redemption_differs',
    'redemption',
    o.order_id,
    -- Of a hold on another account, all its points are at stake: they go back to somebody else.
    CASE
        WHEN e.points = wanted.points AND coalesce(place.is_elsewhere, false) THEN h.points
        ELSE e.points - wanted.points
    END,
    jsonb_build_object(
        'hold', h.status, 'points_of_hold', h.points, 'entries_of_hold', h.last_reference_seq, 'points_in_ledger', e.points,
        'entries_in_ledger', e.entries, 'account_of_hold', h.account_id, 'account_of_entries', e.account_id
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
        count(*) AS entries,
        (array_agg(l.account_id ORDER BY l.reference_seq DESC))[1] AS account_id
    FROM loyalty.ledger_entries AS l
    WHERE l.merchant_id = o.merchant_id AND l.reference_type = 'redemption' AND l.reference_id = o.order_id
    OFFSET 0
) AS e
LEFT JOIN loyalty.holds AS h ON h.merchant_id = o.merchant_id AND h.order_id = o.order_id
CROSS JOIN LATERAL (SELECT CASE h.status WHEN 'captured' THEN -h.points ELSE 0 END AS points) AS wanted
-- A hold that is open again, or was released, may be of a customer who came after the one who has the entries.
LEFT JOIN LATERAL (
    SELECT
        survivor.account_id <> h.account_id
        AND NOT EXISTS (
            SELECT 1
            FROM loyalty.ledger_entries AS m
            WHERE
                m.merchant_id = h.merchant_id
                AND m.account_id = e.account_id
                AND survivor.account_id = e.account_id
                AND (
                    (m.reference_type = 'merge' AND m.reference_id = own.customer_id)
                    OR (m.kind = 'reversed' AND m.reason LIKE 'merged into %')
                )
        ) AS is_elsewhere
    FROM loyalty.accounts AS own
    INNER JOIN loyalty.accounts AS survivor
        ON
            survivor.merchant_id = own.merchant_id
            AND survivor.customer_id = loyalty.customer_in_ledger(own.merchant_id, own.customer_id)
    WHERE
        h.status IN ('captured', 'restored')
        AND e.account_id <> h.account_id
        AND own.merchant_id = h.merchant_id
        AND own.account_id = e.account_id
) AS place ON true
WHERE
    e.points <> wanted.points
    OR e.entries <> coalesce(h.last_reference_seq, 0)
    OR coalesce(place.is_elsewhere, false);
