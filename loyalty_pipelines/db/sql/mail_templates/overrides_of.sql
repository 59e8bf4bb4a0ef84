-- The overrides of some merchants and of the platform. Reads only; index mail_templates_pkey.
SELECT
    t.merchant_id,
    t.store_id,
    t.template,
    t.locale,
    t.subject,
    t.text_body,
    t.html_body
FROM loyalty.mail_templates AS t
WHERE t.merchant_id = '' OR t.merchant_id = ANY(CAST(:merchant_ids AS text[]) COLLATE "C");
