-- Paid orders that are cancelled while the pipelines run: one in fifty.
UPDATE sample_shop.orders
SET status = 'cancelled', updated_at = now()
WHERE status = 'paid' AND right(id, 2) IN ('20', '70');
