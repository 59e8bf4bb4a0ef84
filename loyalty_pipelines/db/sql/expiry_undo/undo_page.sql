-- Gives back what these entries took, once each, under the merchant's award lock. Repeating it finds them given back.
SELECT
    count(undone.points) AS accounts,
    coalesce(sum(undone.points), 0) AS points
FROM unnest(CAST(:account_ids AS bigint[]), CAST(:seqs AS bigint[])) AS e (account_id, seq)
CROSS JOIN LATERAL (
    SELECT loyalty.undo_expiry(
        :merchant_id, e.account_id, e.seq, CAST(:least_expires_at AS timestamptz), :timezone, CAST(:is_mailed AS boolean),
        :reason, :actor, :run_id
    ) AS points
) AS undone;
