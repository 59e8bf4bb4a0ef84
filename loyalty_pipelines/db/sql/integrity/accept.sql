-- Somebody has looked at findings and leaves them as they are, in that name. A changed history is closed with it: its seal
-- is forgotten, and the next full proof seals what is there. Indexes account_seals_pkey, findings_by_number.
WITH accepted AS (
    UPDATE loyalty.findings AS f
    SET
        accepted_at = now(),
        accepted_by = :actor,
        accepted_because = :reason,
        closed_at = CASE WHEN f.class = 'history_changed' THEN now() END
    WHERE f.finding_id = ANY(CAST(:finding_ids AS bigint[])) AND f.closed_at IS NULL
    RETURNING f.merchant_id, f.class, f.object_id
)

DELETE FROM loyalty.account_seals AS z
USING accepted AS a
WHERE
    a.class = 'history_changed'
    AND z.merchant_id = a.merchant_id
    AND z.account_id = CASE WHEN a.class = 'history_changed' THEN CAST(a.object_id AS bigint) END;
