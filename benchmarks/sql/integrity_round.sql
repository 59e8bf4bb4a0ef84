-- One entry more for every account, as the :round-th: an order, in round 9 a redemption, in round 10 of every tenth account
-- an expiry.
INSERT INTO loyalty.ledger_entries (merchant_id, account_id, seq, kind, points, balance_before, balance_after,
    reference_type, reference_id, reference_seq, actor, run_id, occurred_at)
SELECT a.merchant_id, a.account_id, {round}, e.kind, e.points, e.balance, e.balance + e.points, e.reference_type,
    e.reference_id, 1, 'benchmark', 'benchmark', now()
FROM loyalty.accounts AS a
CROSS JOIN LATERAL (SELECT 10 + mod(a.account_id, 90) AS points, {round} = 10 AND mod(a.account_id, 10) = 0 AS is_expired) AS f
CROSS JOIN LATERAL (
    SELECT
        CASE WHEN {round} = 9 THEN 'redeemed' WHEN f.is_expired THEN 'expired' ELSE 'earned' END AS kind,
        CASE WHEN {round} = 9 THEN -f.points WHEN f.is_expired THEN -7 * f.points ELSE f.points END AS points,
        CASE WHEN {round} = 10 THEN 7 ELSE {round} - 1 END * f.points AS balance,
        CASE WHEN {round} = 9 THEN 'redemption' WHEN f.is_expired THEN 'expiry' ELSE 'order' END AS reference_type,
        CASE WHEN f.is_expired THEN a.account_id || '/10' ELSE 'order-' || a.account_id || '-{round}' END AS reference_id
) AS e
ORDER BY hashtext(a.account_id::text)
