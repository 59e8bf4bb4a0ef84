-- Orders and redemptions whose accounts don't have the points in the ledger that order_points and holds say, by a digest
-- per account: 1 error in 2,000,000,000 would not be seen. A redemption stays on the account that a merge has emptied while
-- its hold goes along: such accounts are looked at each time. Reads order_points and holds once.
INSERT INTO integrity_orders (merchant_id, reference_type, order_id)
WITH suspects AS MATERIALIZED (
    SELECT
        coalesce(s.merchant_id, t.merchant_id, h.merchant_id) AS merchant_id,
        coalesce(s.account_id, t.account_id, h.account_id) AS account_id,
        mod(coalesce(s.order_share, 0) - coalesce(t.share, 0), 2147483647) <> 0
        OR coalesce(s.times_earned_again, 0) > 0 AS is_order_suspect,
        mod(coalesce(s.redemption_share, 0) - coalesce(h.share, 0), 2147483647) <> 0 AS is_redemption_suspect
    FROM integrity_sums AS s
    FULL JOIN (
        SELECT
            op.merchant_id,
            op.account_id,
            sum(loyalty.share_digest(op.in_force_points, op.stamps_in_force, op.order_id)) AS share
        FROM loyalty.order_points AS op
        WHERE CAST(:merchant_ids AS text[]) IS NULL OR op.merchant_id = ANY(CAST(:merchant_ids AS text[]))
        GROUP BY op.merchant_id, op.account_id
    ) AS t ON t.merchant_id = s.merchant_id AND t.account_id = s.account_id
    FULL JOIN (
        SELECT
            d.merchant_id,
            d.account_id,
            sum(
                loyalty.share_digest(
                    CASE d.status WHEN 'captured' THEN -d.points ELSE 0 END,
                    d.last_reference_seq,
                    d.order_id
                )
            ) AS share
        FROM loyalty.holds AS d
        WHERE CAST(:merchant_ids AS text[]) IS NULL OR d.merchant_id = ANY(CAST(:merchant_ids AS text[]))
        GROUP BY d.merchant_id, d.account_id
    ) AS h
        ON
            h.merchant_id = coalesce(s.merchant_id, t.merchant_id)
            AND h.account_id = coalesce(s.account_id, t.account_id)
    WHERE
        mod(coalesce(s.order_share, 0) - coalesce(t.share, 0), 2147483647) <> 0
        OR coalesce(s.times_earned_again, 0) > 0
        OR mod(coalesce(s.redemption_share, 0) - coalesce(h.share, 0), 2147483647) <> 0
)

SELECT
    s.merchant_id,
    e.reference_type,
    e.reference_id
FROM suspects AS s
INNER JOIN loyalty.ledger_entries AS e ON e.merchant_id = s.merchant_id AND e.account_id = s.account_id
WHERE
    (s.is_order_suspect AND e.reference_type = 'order')
    OR (s.is_redemption_suspect AND e.reference_type = 'redemption')
UNION
SELECT
    s.merchant_id,
    'order',
    op.order_id
FROM suspects AS s
INNER JOIN loyalty.order_points AS op ON op.merchant_id = s.merchant_id AND op.account_id = s.account_id
WHERE s.is_order_suspect
UNION
SELECT
    s.merchant_id,
    'redemption',
    h.order_id
FROM suspects AS s
INNER JOIN loyalty.holds AS h ON h.merchant_id = s.merchant_id AND h.account_id = s.account_id
WHERE s.is_redemption_suspect;
