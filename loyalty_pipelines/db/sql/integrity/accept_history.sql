-- Somebody has looked at a changed history and takes it as it is: the finding is closed in that name, and the next full
-- proof seals the account anew. Indexes account_seals_pkey, findings_by_number.
WITH forgotten AS (
    DELETE FROM loyalty.account_seals AS z
    WHERE z.merchant_id = :merchant_id AND z.account_id = :account_id
)

UPDATE loyalty.findings AS f
SET
    closed_at = now(),
    evidence = f.evidence
    || jsonb_build_object('accepted_by', CAST(:actor AS text), 'accepted_because', CAST(:reason AS text))
WHERE f.finding_id = :finding_id AND f.closed_at IS NULL;
