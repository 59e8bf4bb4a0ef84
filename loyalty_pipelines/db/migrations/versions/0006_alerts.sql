-- Alerts: open problems, what was sent about them, which channels work, what is silenced. They are the platform's, so their
-- keys begin with no merchant.
SET LOCAL ROLE loyalty_owner;

-- Problems ------------------------------------------------------------------------------------------------

CREATE TABLE loyalty.alert_problems (
    problem_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    severity text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    title text NOT NULL,
    detail text NOT NULL DEFAULT '',
    merchants text[] NOT NULL DEFAULT '{}',
    merchants_total integer NOT NULL DEFAULT 0,
    numbers jsonb NOT NULL DEFAULT '{}',
    runbook text NOT NULL DEFAULT '',
    place text NOT NULL DEFAULT '',
    started_at timestamptz NOT NULL,
    gone_since timestamptz,
    returns integer NOT NULL DEFAULT 0,
    ended_at timestamptz,
    notified_severity text COLLATE "C",
    first_notified_at timestamptz,
    last_notified_at timestamptz,
    last_channel text COLLATE "C",
    told_state text COLLATE "C",
    told_findings double precision,
    times_worse integer NOT NULL DEFAULT 0,
    reminders integer NOT NULL DEFAULT 0,
    unanswered integer NOT NULL DEFAULT 0,
    end_notified_at timestamptz,
    closed_at timestamptz,
    closed_by text,
    close_reason text,
    leased_until timestamptz,
    CONSTRAINT alert_problems_severity_is_known CHECK (severity IN ('P0', 'P1', 'P2')),
    CONSTRAINT alert_problems_notified_severity_is_known CHECK (notified_severity IN ('P0', 'P1', 'P2')),
    CONSTRAINT alert_problems_state_is_known CHECK (state IN ('red', 'yellow', 'could not run')),
    CONSTRAINT alert_problems_told_state_is_known CHECK (told_state IN ('red', 'yellow', 'could not run')),
    CONSTRAINT alert_problems_close_is_told
    CHECK (num_nulls(closed_at, closed_by, close_reason) IN (0, 3) AND (closed_at IS NULL OR ended_at IS NOT NULL)),
    CONSTRAINT alert_problems_source_is_known CHECK (source IN ('check', 'job', 'freshness', 'watch'))
);
CREATE UNIQUE INDEX alert_problems_open ON loyalty.alert_problems (name) WHERE ended_at IS NULL;
-- What somebody has still to be told of: open problems, and those that ended after they were announced.
CREATE INDEX alert_problems_unsettled ON loyalty.alert_problems (problem_id)
WHERE ended_at IS NULL OR (first_notified_at IS NOT NULL AND end_notified_at IS NULL);
CREATE INDEX alert_problems_ended ON loyalty.alert_problems (ended_at) WHERE ended_at IS NOT NULL;
COMMENT ON TABLE loyalty.alert_problems IS
'What somebody is to be told of, from its start to its end, and what was sent about it. Ended, never deleted.';
COMMENT ON COLUMN loyalty.alert_problems.told_state IS 'What the last message said: could not run, and red now, is news.';
COMMENT ON COLUMN loyalty.alert_problems.told_findings IS
'How many findings the last message that knew told of: more of them are news.';
COMMENT ON COLUMN loyalty.alert_problems.unanswered IS
'How often what is due was sent and not answered. After three times it counts as told.';
COMMENT ON COLUMN loyalty.alert_problems.closed_at IS
'When somebody said that it is over: what began before that is not looked at again.';
COMMENT ON COLUMN loyalty.alert_problems.gone_since IS
'Not seen since then. It ends when it has stayed away for long enough.';
COMMENT ON COLUMN loyalty.alert_problems.returns IS
'How often it was gone and came back lately: each time it has to stay away for longer before it ends.';
COMMENT ON COLUMN loyalty.alert_problems.place IS 'Where it is in the web UI of Dagster, without the host.';

-- What was sent -------------------------------------------------------------------------------------------

CREATE TABLE loyalty.alert_deliveries (
    delivery_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    problem_id bigint NOT NULL REFERENCES loyalty.alert_problems (problem_id),
    event text COLLATE "C" NOT NULL,
    severity text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    sent_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX alert_deliveries_of_problem ON loyalty.alert_deliveries (problem_id, delivery_id);
COMMENT ON TABLE loyalty.alert_deliveries IS 'Which channel took what about a problem.';

CREATE TABLE loyalty.alert_channels (
    channel text COLLATE "C" PRIMARY KEY,
    succeeded_at timestamptz,
    failed_at timestamptz,
    failing_since timestamptz,
    failures integer NOT NULL DEFAULT 0,
    error text,
    next_try_at timestamptz
);
COMMENT ON TABLE loyalty.alert_channels IS
'Whether a channel works. failures counts those in a row, error is the last one; no secret is in it.';

-- What nobody wants to hear of ----------------------------------------------------------------------------

CREATE TABLE loyalty.alert_silences (
    silence_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    reason text NOT NULL,
    actor text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    until_at timestamptz NOT NULL,
    ended_at timestamptz,
    ended_by text,
    CONSTRAINT alert_silences_reason_is_said CHECK (btrim(reason) <> '')
);
CREATE INDEX alert_silences_by_name ON loyalty.alert_silences (name, until_at);
COMMENT ON TABLE loyalty.alert_silences IS 'Problems that are tracked and not sent, until when, who said so and why.';

-- Who looks -----------------------------------------------------------------------------------------------

CREATE TABLE loyalty.alert_observers (
    observer text COLLATE "C" PRIMARY KEY,
    looked_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE loyalty.alert_observers IS
'When alerts_sensor and the watchdog last looked. Its row is the lock of an observer.';

-- Rights --------------------------------------------------------------------------------------------------

GRANT SELECT, INSERT, UPDATE, DELETE ON
loyalty.alert_problems, loyalty.alert_deliveries, loyalty.alert_channels, loyalty.alert_silences, loyalty.alert_observers
TO loyalty_pipeline;
GRANT SELECT ON
loyalty.alert_problems, loyalty.alert_deliveries, loyalty.alert_channels, loyalty.alert_silences, loyalty.alert_observers
TO loyalty_reader;

RESET ROLE;
