-- A class that could not be looked for: a finding of its own, so that nobody takes silence for a proof.
INSERT INTO found (merchant_id, class, object_type, object_id, points_difference, evidence)
SELECT
    m.merchant_id,
    'check_failed',
    'class',
    CAST(:class AS text),
    0,
    jsonb_build_object('why', CAST(:why AS text))
FROM checked_merchants AS m;
