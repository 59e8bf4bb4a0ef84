-- Orders and redemptions of accounts that don't have the points in the ledger that order_points and holds say, by a digest
-- per account: 1 error in 2,000,000,000 would not be seen. A redemption stays on the account that a merge has emptied while
-- its hold goes along: such accounts are looked at each time. Reads order_points and holds once.
INSERT INTO integrity_orders (merchant_id, reference_type, order_id)
WITH suspects AS MATERIALIZED (
    SELECT
        coalesce(s.merchant_id, t.merchant_id) AS merchant_id,
        coalesce(s.account_id, t.account_id) AS account_id
    FROM integrity_sums AS s
    FULL JOIN (
        SELECT
            one.merchant_id,
            one.account_id,
            sum(one.share) AS share
        FROM (
            SELECT
                op.merchant_id,
                op.account_id,
                loyalty.share_digest(op.in_force_points, op.stamps_in_force, op.order_id) AS share
            FROM loyalty.order_points AS op
            WHERE CAST(:merchant_ids AS text[]) IS NULL OR op.merchant_id = ANY(CAST(:merchant_ids AS text[]))
            UNION ALL
            SELECT
                d.merchant_id,
                d.account_id,
                loyalty.redemption_share_digest(
                    CASE d.status WHEN 'captured' THEN -d.points ELSE 0 END, d.last_reference_seq, d.order_id
                )
            FROM loyalty.holds AS d
            WHERE CAST(:merchant_ids AS text[]) IS NULL OR d.merchant_id = ANY(CAST(:merchant_ids AS text[]))
        ) AS one
        GROUP BY one.merchant_id, one.account_id
    ) AS t ON t.merchant_id = s.merchant_id AND t.account_id = s.account_id
    WHERE
        mod(coalesce(s.share, 0) - coalesce(t.share, 0), 2147483647) <> 0
        OR coalesce(s.times_earned_again, 0) > 0
)

SELECT
    s.merchant_id,
    e.reference_type,
    e.reference_id
FROM suspects AS s
INNER JOIN loyalty.ledger_entries AS e ON e.merchant_id = s.merchant_id AND e.account_id = s.account_id
WHERE e.reference_type IN ('order', 'redemption')
UNION
SELECT
    s.merchant_id,
    'order',
    op.order_id
FROM suspects AS s
INNER JOIN loyalty.order_points AS op ON op.merchant_id = s.merchant_id AND op.account_id = s.account_id
UNION
SELECT
    s.merchant_id,
    'redemption',
    h.order_id
FROM suspects AS s
INNER JOIN loyalty.holds AS h ON h.merchant_id = s.merchant_id AND h.account_id = s.account_id;
