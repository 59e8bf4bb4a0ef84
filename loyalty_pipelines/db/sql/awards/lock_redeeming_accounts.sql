-- Locks the accounts of these redemptions together with those that the batch will change, in key order: a redemption's
-- row is locked after its account, and a checkout of another customer may wait for that row. Safe to repeat.
SELECT a.account_id
FROM loyalty.accounts AS a
WHERE
    a.merchant_id = :merchant_id
    AND a.account_id IN (
        SELECT h.account_id
        FROM loyalty.holds AS h
        WHERE h.merchant_id = :merchant_id AND h.order_id = ANY(CAST(:order_ids AS text[]))
        UNION
        SELECT c.account_id
        FROM award_lines AS l
        INNER JOIN loyalty.accounts AS c ON c.merchant_id = :merchant_id AND c.customer_id = l.customer_id
        WHERE l.is_changed
    )
ORDER BY a.account_id
FOR NO KEY UPDATE OF a;
