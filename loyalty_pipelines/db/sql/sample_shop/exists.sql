-- Whether the last thing that the sample shop got is there. Reads only.
SELECT to_regclass('sample_shop.orders_by_customer') IS NOT NULL AS is_there;
