-- Turns what is wrong now into findings: new ones are opened, known ones seen again, and those of :closing classes that
-- are gone are closed; with :is_scoped, those of objects in found_scope only. One statement, so that a finding is never
-- closed and opened at once. What it costs, unless the proof says it: points by the value of a point of now. Safe to
-- repeat: a second time sees them again. Index findings_open.
WITH seen AS MATERIALIZED (
    SELECT
        f.merchant_id,
        f.class,
        f.object_type,
        f.object_id,
        CAST(
            greatest(least(f.points_difference, 9223372036854775807), -9223372036854775807) AS bigint
        ) AS points_difference,
        f.evidence,
        f.policy,
        f.amount_at_risk,
        f.currency
    FROM found AS f
),

values_of_points AS MATERIALIZED (
    SELECT
        m.merchant_id,
        t.currency,
        coalesce(t.point_value_amount, 0) AS point_value_amount
    FROM (SELECT DISTINCT s.merchant_id FROM seen AS s) AS m
    CROSS JOIN LATERAL loyalty.merchant_terms(m.merchant_id) AS t
),

gone AS (
    UPDATE loyalty.findings AS f
    SET closed_at = now()
    WHERE
        f.closed_at IS NULL
        AND f.subject = :subject
        AND f.class = ANY(CAST(:closing AS text[]))
        AND (CAST(:merchant_ids AS text[]) IS NULL OR f.merchant_id = ANY(CAST(:merchant_ids AS text[])))
        AND (
            NOT CAST(:is_scoped AS boolean)
            OR EXISTS (
                SELECT 1
                FROM found_scope AS l
                WHERE l.merchant_id = f.merchant_id AND l.object_type = f.object_type AND l.object_id = f.object_id
            )
        )
        AND NOT EXISTS (
            SELECT 1
            FROM seen AS s
            WHERE
                s.merchant_id = f.merchant_id
                AND s.class = f.class
                AND s.object_type = f.object_type
                AND s.object_id = f.object_id
        )
    RETURNING f.finding_id
),

kept AS (
    INSERT INTO loyalty.findings AS f (
        merchant_id, subject, class, severity, object_type, object_id, points_difference, amount_at_risk, currency,
        evidence, policy, run_id
    )
    SELECT
        s.merchant_id,
        CAST(:subject AS text),
        s.class,
        CASE WHEN s.class = ANY(CAST(:warnings AS text[])) THEN 'warning' ELSE 'error' END,
        s.object_type,
        s.object_id,
        s.points_difference,
        coalesce(s.amount_at_risk, abs(s.points_difference) * v.point_value_amount),
        coalesce(s.currency, v.currency),
        s.evidence,
        s.policy,
        CAST(:run_id AS text)
    FROM seen AS s
    INNER JOIN values_of_points AS v ON v.merchant_id = s.merchant_id
    ORDER BY s.merchant_id, s.class, s.object_type, s.object_id
    ON CONFLICT (merchant_id, subject, class, object_type, object_id) WHERE closed_at IS NULL DO UPDATE SET
        points_difference = excluded.points_difference,
        amount_at_risk = excluded.amount_at_risk,
        currency = excluded.currency,
        evidence = excluded.evidence,
        policy = excluded.policy,
        times_seen = f.times_seen + 1,
        -- What was accepted was this difference, not another one, also where no points differ.
        accepted_at = CASE
            WHEN
                f.accepted_at IS NOT NULL
                AND f.points_difference = excluded.points_difference
                AND (f.policy IS NULL OR f.amount_at_risk = excluded.amount_at_risk)
                AND loyalty.accepted_evidence(f.class, f.evidence)
                IS NOT DISTINCT FROM loyalty.accepted_evidence(f.class, excluded.evidence)
                THEN f.accepted_at
        END,
        last_seen_at = now(),
        run_id = excluded.run_id
    RETURNING f.finding_id
)

SELECT
    (SELECT count(*) FROM kept) AS findings,
    (SELECT count(*) FROM gone) AS closed;
