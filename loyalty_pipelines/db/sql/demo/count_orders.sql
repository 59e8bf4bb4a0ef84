-- How many orders the demo made so far; its next ones are numbered from there. Reads only.
SELECT count(*)
FROM sample_shop.orders
WHERE id LIKE 'D%';
