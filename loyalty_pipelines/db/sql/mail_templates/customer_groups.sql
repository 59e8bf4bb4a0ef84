-- Active customers by store and locale, of some merchants or (NULL) of all; a merchant without customers has one row with
-- none. Reads only; the shop's index on the customers' merchant, where it has one.
SELECT
    m.merchant_id,
    m.locale AS merchant_locale,
    c.store_id,
    c.locale,
    count(c.customer_id) AS customers
FROM loyalty_source.merchants AS m
LEFT JOIN loyalty_source.customers AS c ON c.merchant_id = m.merchant_id AND c.is_active
WHERE CAST(:merchant_ids AS text[]) IS NULL OR m.merchant_id = ANY(CAST(:merchant_ids AS text[]))
GROUP BY m.merchant_id, m.locale, c.store_id, c.locale
ORDER BY m.merchant_id, c.store_id, c.locale;
