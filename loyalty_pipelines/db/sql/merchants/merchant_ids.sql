-- The shop's merchants. Inactive ones too: their orders may still be refunded. Reads only.
SELECT m.merchant_id
FROM loyalty_source.merchants AS m
ORDER BY m.merchant_id;
