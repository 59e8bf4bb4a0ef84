-- Looks that are due have been done; of everything, all are decided anew. Index subscription_looks_due.
DELETE FROM loyalty.subscription_looks AS l
USING checked_merchants AS m
WHERE m.merchant_id = l.merchant_id AND (CAST(:is_full AS boolean) OR l.due_at <= CAST(:as_of AS timestamptz));
