-- Whether the views and look-ups are those that this version makes. Safe to repeat: it only reads.
-- Index: pg_attribute_relid_attnam_index; the names are looked up by pg_class_relname_nsp_index.
SELECT
    to_regprocedure('loyalty_source.payments_by_ids(text[], text[])') IS NOT NULL
    AND EXISTS (
        SELECT 1
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = to_regclass('loyalty_source.orders') AND a.attname = 'plan_id' AND NOT a.attisdropped
    ) AS has_later_columns;
