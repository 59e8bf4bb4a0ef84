-- The open holds of an account, oldest first. Reads only; holds_by_account.
SELECT
    h.order_id,
    h.points,
    h.reserved_at,
    h.expires_at
FROM loyalty.holds AS h
WHERE h.merchant_id = :merchant_id AND h.account_id = :account_id AND h.status = 'open'
ORDER BY h.reserved_at, h.order_id;
