-- 10,000 accounts earn an order each, with all that goes with it; the :seq-th entry of each.
WITH chosen AS MATERIALIZED (
    SELECT a.* FROM loyalty.accounts AS a WHERE mod(a.account_id, {every}) = {number} AND a.balance > 0 LIMIT 10000
),
entries AS (
    INSERT INTO loyalty.ledger_entries (merchant_id, account_id, seq, kind, points, balance_before, balance_after,
        reference_type, reference_id, reference_seq, actor, occurred_at)
    SELECT c.merchant_id, c.account_id, c.next_seq, 'earned', 5, c.balance, c.balance + 5, 'order',
        'news-' || c.account_id || '-' || c.next_seq, 1, 'benchmark', now()
    FROM chosen AS c
),
orders AS (
    INSERT INTO loyalty.order_points (merchant_id, order_id, account_id, target_points, in_force_points,
        last_reference_seq, program_version)
    SELECT c.merchant_id, 'news-' || c.account_id || '-' || c.next_seq, c.account_id, 5, 5, 1, 1 FROM chosen AS c
)
UPDATE loyalty.accounts AS a SET balance = a.balance + 5, next_seq = a.next_seq + 1
FROM chosen AS c WHERE a.merchant_id = c.merchant_id AND a.account_id = c.account_id
