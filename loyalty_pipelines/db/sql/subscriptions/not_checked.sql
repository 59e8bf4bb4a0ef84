-- Relations that the mapping lacks, and which classes can't be looked for without them: a finding, because silence is no
-- proof.
INSERT INTO found (merchant_id, class, object_type, object_id, points_difference, evidence)
SELECT
    m.merchant_id,
    'not_checked',
    'relation',
    l.relation,
    0,
    jsonb_build_object('classes', CAST(l.classes AS jsonb))
FROM checked_merchants AS m
CROSS JOIN unnest(CAST(:relations AS text[]), CAST(:classes AS text[])) AS l (relation, classes);
