-- Orders on which points were redeemed, here or in the ledger, and those whose status the mapping does not know. Gone at
-- the end of the transaction. Reads the shop's orders once, in parallel.
CREATE TEMPORARY TABLE odd_orders ON COMMIT DROP AS
SELECT
    o.merchant_id,
    o.order_id,
    o.customer_id,
    o.status,
    o.source_status,
    CASE WHEN o.total_amount BETWEEN 0 AND 1000000000000000 THEN o.total_amount ELSE 0 END AS total_amount,
    o.currency,
    o.points_redeemed,
    CASE
        WHEN o.points_discount_amount BETWEEN 0 AND 1000000000000000 THEN o.points_discount_amount
    END AS points_discount_amount,
    o.paid_at,
    coalesce(o.updated_at, o.paid_at, '-infinity') AS updated_at,
    h.points AS held_points
FROM source_orders AS o
LEFT JOIN loyalty.holds AS h ON h.merchant_id = o.merchant_id AND h.order_id = o.order_id AND h.status = 'captured'
WHERE
    o.status = 'unrecognized'
    OR o.points_redeemed > 0
    OR o.points_discount_amount > 0
    OR h.points IS NOT NULL;
