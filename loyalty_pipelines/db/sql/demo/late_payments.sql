-- What happens while the pipelines run: orders that were pending are paid now, in slices of their numbers.
UPDATE sample_shop.orders
SET status = 'paid', paid_at = now(), updated_at = now()
WHERE status = 'pending' AND right(id, 1) = CAST(:digit AS text);
