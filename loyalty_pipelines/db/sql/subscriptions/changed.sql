-- What has to be looked at: what the shop changed, what is due for a look, and orders whose finding the ledger may have
-- settled. Gone at the end of the transaction. Indexes subscription_looks_due, findings_open.
CREATE TEMPORARY TABLE changed_objects ON COMMIT DROP AS
SELECT
    c.merchant_id,
    c.relation,
    c.object_id
FROM (
    SELECT
        i.merchant_id,
        i.relation,
        i.object_id
    FROM loyalty.subscription_inbox AS i
    UNION
    SELECT
        l.merchant_id,
        l.relation,
        l.object_id
    FROM loyalty.subscription_looks AS l
    WHERE l.due_at <= CAST(:as_of AS timestamptz)
    UNION
    SELECT
        f.merchant_id,
        'orders',
        f.object_id
    FROM loyalty.findings AS f
    WHERE f.closed_at IS NULL AND f.subject = :subject AND f.object_type = 'order'
) AS c
INNER JOIN checked_merchants AS m ON m.merchant_id = c.merchant_id;
