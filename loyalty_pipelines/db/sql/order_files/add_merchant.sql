-- Adds a merchant to the sample shop; safe to repeat, the first one stays.
INSERT INTO sample_shop.merchants (id, name, timezone, currency)
VALUES (:merchant_id, :merchant_id, :timezone, :currency)
ON CONFLICT (id) DO NOTHING;
