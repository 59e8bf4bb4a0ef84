-- Writes an override, or replaces the one with its key: repeating it leaves the same texts. Index mail_templates_pkey.
INSERT INTO loyalty.mail_templates AS t (
    merchant_id, store_id, template, locale, subject, text_body, html_body, updated_by
)
VALUES (:merchant_id, :store_id, :template, :locale, :subject, :text_body, :html_body, :actor)
ON CONFLICT (merchant_id, store_id, template, locale) DO UPDATE
SET
    subject = excluded.subject,
    text_body = excluded.text_body,
    html_body = excluded.html_body,
    updated_at = now(),
    updated_by = excluded.updated_by
-- A row that was there carries the lock that the update took.
RETURNING t.xmax <> 0 AS is_replaced;
