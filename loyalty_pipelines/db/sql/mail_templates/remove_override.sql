-- Removes an override by its key; repeating it finds none. Index mail_templates_pkey.
DELETE FROM loyalty.mail_templates AS t
WHERE
    t.merchant_id = :merchant_id
    AND t.store_id = :store_id
    AND t.template = :template
    AND t.locale = :locale;
