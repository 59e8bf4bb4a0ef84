-- What has to be looked at: these objects, and what belongs to them. Gone at the end of the transaction.
CREATE TEMPORARY TABLE changed_objects ON COMMIT DROP AS
SELECT DISTINCT
    c.merchant_id COLLATE "C" AS merchant_id,
    c.relation COLLATE "C" AS relation,
    c.object_id COLLATE "C" AS object_id
FROM unnest(CAST(:merchant_ids AS text[]), CAST(:relations AS text[]), CAST(:object_ids AS text[]))
AS c (merchant_id, relation, object_id);
