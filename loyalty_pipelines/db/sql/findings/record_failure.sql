-- A merchant could not be proved: a finding of its own, so that nobody takes silence for a proof. Safe to repeat.
-- Index findings_open.
INSERT INTO loyalty.findings AS f (merchant_id, subject, class, severity, object_type, object_id, evidence, run_id)
VALUES (
    :merchant_id, :subject, :class, 'error', 'merchant', :merchant_id, jsonb_build_object('why', CAST(:why AS text)), :run_id
)
ON CONFLICT (merchant_id, subject, class, object_type, object_id) WHERE closed_at IS NULL DO UPDATE SET
    evidence = excluded.evidence, times_seen = f.times_seen + 1, last_seen_at = now(), run_id = excluded.run_id;
