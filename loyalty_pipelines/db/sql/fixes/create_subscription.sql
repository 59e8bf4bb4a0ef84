-- Adds a subscription to the shop's table and gives its id. Repeating it adds another, or fails where the id is given
-- and unique: the caller asks first whether its plan was applied.
SELECT loyalty_source.create_subscription(CAST(:given AS jsonb));
