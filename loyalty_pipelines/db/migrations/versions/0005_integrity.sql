-- Integrity: what the nightly proof found, how far it has come, what it has sealed, what was repaired.
SET LOCAL ROLE loyalty_owner;
-- Functions below read views that "loyalty sources apply" makes later.
SET LOCAL check_function_bodies = off;

-- Findings ------------------------------------------------------------------------------------------------

CREATE TABLE loyalty.findings (
    merchant_id text COLLATE "C" NOT NULL,
    finding_id bigint GENERATED ALWAYS AS IDENTITY,
    subject text COLLATE "C" NOT NULL,
    class text COLLATE "C" NOT NULL,
    severity text COLLATE "C" NOT NULL,
    object_type text COLLATE "C" NOT NULL,
    object_id text COLLATE "C" NOT NULL,
    points_difference bigint NOT NULL DEFAULT 0,
    amount_at_risk numeric NOT NULL DEFAULT 0,
    currency text,
    evidence jsonb NOT NULL DEFAULT '{}',
    times_seen integer NOT NULL DEFAULT 1,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    closed_at timestamptz,
    run_id text,
    PRIMARY KEY (merchant_id, finding_id),
    CONSTRAINT findings_severity_is_known CHECK (severity IN ('error', 'warning'))
);
-- One open finding per object and class; what comes back after it was closed is a new row, the old one is its history.
CREATE UNIQUE INDEX findings_open
ON loyalty.findings (merchant_id, subject, class, object_type, object_id) WHERE closed_at IS NULL;
CREATE INDEX findings_by_number ON loyalty.findings (finding_id);
CREATE INDEX findings_closed ON loyalty.findings (closed_at) WHERE closed_at IS NOT NULL;
COMMENT ON TABLE loyalty.findings IS
'What a proof found wrong, since when, and what it costs. Closed when it is gone, never deleted.';
COMMENT ON COLUMN loyalty.findings.points_difference IS
'Points that somebody has too many (positive) or too few (negative) by it.';
COMMENT ON COLUMN loyalty.findings.evidence IS 'The rows that prove it: ids and numbers, no personal data.';

-- Who was served last ----------------------------------------------------------------------------------------

CREATE TABLE loyalty.merchant_jobs (
    merchant_id text COLLATE "C" NOT NULL,
    job text COLLATE "C" NOT NULL,
    succeeded_at timestamptz,
    succeeded_run_id text,
    failed_at timestamptz,
    failed_run_id text,
    failure text,
    PRIMARY KEY (merchant_id, job)
);
COMMENT ON TABLE loyalty.merchant_jobs IS
'When a job last succeeded and last failed for a merchant. Written with what the job does, so it needs no Dagster.';

-- Rights --------------------------------------------------------------------------------------------------

GRANT SELECT, INSERT, UPDATE, DELETE ON loyalty.findings, loyalty.merchant_jobs TO loyalty_pipeline;
GRANT SELECT ON loyalty.findings, loyalty.merchant_jobs TO loyalty_reader;

RESET ROLE;
