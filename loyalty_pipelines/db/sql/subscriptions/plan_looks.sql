-- What is suspected and not ripe yet is looked at when it is. Safe to repeat. Key subscription_looks_pkey.
INSERT INTO loyalty.subscription_looks AS l (merchant_id, relation, object_id, due_at)
SELECT
    s.merchant_id,
    s.object_type || 's',
    s.object_id,
    min(CASE WHEN s.ripe_at > CAST(:as_of AS timestamptz) THEN s.ripe_at ELSE s.next_look_at END)
FROM suspected AS s
WHERE
    s.object_type IN ('payment', 'subscription', 'order')
    AND (s.ripe_at > CAST(:as_of AS timestamptz) OR s.next_look_at > CAST(:as_of AS timestamptz))
    AND isfinite(CASE WHEN s.ripe_at > CAST(:as_of AS timestamptz) THEN s.ripe_at ELSE s.next_look_at END)
GROUP BY s.merchant_id, s.object_type, s.object_id
ORDER BY s.merchant_id, s.object_type, s.object_id
ON CONFLICT (merchant_id, relation, object_id) DO UPDATE SET due_at = least(l.due_at, excluded.due_at);
