-- Whether the sample shop's last table is there. Reads only.
SELECT to_regclass('sample_shop.refunds') IS NOT NULL AS is_there;
