-- All overrides, or a merchant's and the platform's, with who set them; in the order in which they are shown. Reads
-- only; the table is small.
SELECT
    t.merchant_id,
    t.store_id,
    t.template,
    t.locale,
    t.subject,
    t.text_body,
    t.html_body,
    t.updated_at,
    t.updated_by
FROM loyalty.mail_templates AS t
WHERE CAST(:merchant_id AS text) IS NULL OR t.merchant_id = '' OR t.merchant_id = :merchant_id
ORDER BY t.merchant_id, t.store_id, t.template, t.locale;
