-- Remembers the shop's updated_at of orders that were looked at and are right, so that polling does not bring them
-- again. Only orders whose updated_at is new are written.
UPDATE loyalty.order_points AS op
SET source_updated_at = l.source_updated_at
FROM award_lines AS l
WHERE
    op.merchant_id = :merchant_id
    AND op.order_id = l.order_id
    AND op.account_id = l.account_id
    AND l.is_tracked
    AND op.source_updated_at IS DISTINCT FROM l.source_updated_at;
