-- Puts every order of the merchant whose ledger differs from what it deserves now into the inbox. Finds what no trigger
-- and no poll saw: bulk loads, disabled triggers, restores, orders older than the installation. Repeating it before the
-- inbox is drained only adds rows that will be found unchanged. Reads the merchant's orders once; in order of customer,
-- so that inbox and batches lie together on disk.
INSERT INTO loyalty.order_inbox (merchant_id, customer_id, order_id, source)
SELECT DISTINCT ON (loyalty.customer_hint(d.customer_id), d.order_id COLLATE "C")
    CAST(:merchant_id AS text),
    loyalty.customer_hint(d.customer_id),
    d.order_id,
    'sweep'
FROM loyalty.order_differences(
    CAST(:merchant_id AS text), CAST(:paid_from AS timestamptz), CAST(:paid_to AS timestamptz)
) AS d
ORDER BY loyalty.customer_hint(d.customer_id), d.order_id COLLATE "C";
