-- A thousand rows that the shop changes: payments, subscriptions and orders all over the tables. Changes of no consequence.
-- Another time of capture would leave a hole between two periods.
UPDATE sample_shop.payments SET updated_at = clock_timestamp(), currency = CASE currency WHEN 'EUR' THEN 'eur' ELSE 'EUR' END
WHERE (merchant_id, id) IN (SELECT merchant_id, 'yo' || n FROM sold WHERE n % {every} = {first} AND n % 20 <> 0 LIMIT 500);
UPDATE sample_shop.subscriptions SET updated_at = clock_timestamp(), created_at = created_at + interval '1 microsecond'
WHERE (merchant_id, id) IN (SELECT merchant_id, 's' || n FROM sold WHERE n % {every} = {second} LIMIT 300);
UPDATE sample_shop.orders SET updated_at = clock_timestamp(), paid_at = paid_at + interval '1 microsecond'
WHERE (merchant_id, id) IN (SELECT merchant_id, 'o' || n FROM sold WHERE n % {every} = {third} LIMIT 200)
