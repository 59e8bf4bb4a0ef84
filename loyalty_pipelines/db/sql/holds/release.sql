-- Releases those of these holds that are still open and stale, on accounts that this transaction has locked, and lowers
-- what the accounts hold by exactly that: the rule of loyalty.give_back_hold for many. A statement of its own, so that
-- it sees what a checkout did before the lock was had. Repeating it finds none. Indexes holds_pkey, accounts_pkey.
WITH released AS (
    UPDATE loyalty.holds AS h
    SET
        status = 'released',
        settled_at = now()
    FROM unnest(CAST(:merchant_ids AS text[]), CAST(:order_ids AS text[]), CAST(:account_ids AS bigint[]))
        AS k (merchant_id, order_id, account_id)
    WHERE
        h.merchant_id = k.merchant_id COLLATE "C"
        AND h.order_id = k.order_id COLLATE "C"
        AND h.account_id = k.account_id
        AND h.status = 'open'
        AND h.expires_at <= :as_of
    RETURNING h.merchant_id, h.account_id, h.points
),

totals AS (
    SELECT
        released.merchant_id,
        released.account_id,
        count(*) AS holds,
        sum(released.points) AS points
    FROM released
    GROUP BY released.merchant_id, released.account_id
),

freed AS (
    UPDATE loyalty.accounts AS a
    SET
        held = a.held - totals.points,
        is_debt_allowed = a.is_debt_allowed AND a.balance < a.held - totals.points
    FROM totals
    WHERE a.merchant_id = totals.merchant_id AND a.account_id = totals.account_id
    RETURNING totals.merchant_id, totals.holds, totals.points
)

SELECT
    freed.merchant_id,
    sum(freed.holds) AS holds,
    sum(freed.points) AS points
FROM freed
GROUP BY freed.merchant_id;
