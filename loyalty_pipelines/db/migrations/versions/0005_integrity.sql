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
    accepted_at timestamptz,
    accepted_by text,
    accepted_because text,
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
COMMENT ON COLUMN loyalty.findings.accepted_at IS
'Since when somebody has decided to leave it as it is: it turns no check red, as long as it stays the same.';
COMMENT ON COLUMN loyalty.findings.evidence IS 'The rows that prove it: ids and numbers, no personal data.';

-- Everybody who has accounts, whether the shop lists them or not: a step along accounts_pkey for each, not all accounts.
CREATE VIEW loyalty.account_merchants AS
WITH RECURSIVE merchants AS (
    (SELECT a.merchant_id FROM loyalty.accounts AS a ORDER BY a.merchant_id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT a.merchant_id
        FROM loyalty.accounts AS a
        WHERE a.merchant_id > m.merchant_id
        ORDER BY a.merchant_id
        LIMIT 1
    )
    FROM merchants AS m
    WHERE m.merchant_id IS NOT NULL
)

SELECT m.merchant_id
FROM merchants AS m
WHERE m.merchant_id IS NOT NULL;
COMMENT ON VIEW loyalty.account_merchants IS 'The merchants that have accounts, whether the shop lists them or not.';

-- How far the proof has come ------------------------------------------------------------------------------

CREATE TABLE loyalty.integrity_marks (
    merchant_id text COLLATE "C" PRIMARY KEY,
    verified_until xid8 NOT NULL,
    verified_at timestamptz NOT NULL DEFAULT now(),
    fully_verified_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE loyalty.integrity_marks IS
'Up to where a merchant''s ledger is proved. No row: never, so that the next proof is a full one.';
COMMENT ON COLUMN loyalty.integrity_marks.verified_until IS
'Entries of older transactions were all visible to the last proof: none that commits late is older.';

-- What was written since a mark: some pages at the end of the table. xid8 has no operator class for BRIN.
CREATE INDEX ledger_entries_by_transaction
ON loyalty.ledger_entries USING brin (CAST(CAST(recorded_xid AS text) AS bigint)) WITH (autosummarize = on);

CREATE TABLE loyalty.account_seals (
    merchant_id text COLLATE "C" NOT NULL,
    account_id bigint NOT NULL,
    entries bigint NOT NULL,
    balance bigint NOT NULL,
    stamps bigint NOT NULL,
    digest bigint NOT NULL,
    sealed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, account_id)
)
WITH (fillfactor = 80);
COMMENT ON TABLE loyalty.account_seals IS
'The proved beginning of each account''s history, with a digest: whoever changes it past PostgreSQL''s rules is found.';

CREATE TABLE loyalty.integrity_repairs (
    merchant_id text COLLATE "C" NOT NULL,
    repair_id bigint GENERATED ALWAYS AS IDENTITY,
    account_id bigint NOT NULL,
    first_seq bigint,
    last_seq bigint NOT NULL,
    before jsonb NOT NULL,
    after jsonb NOT NULL,
    reason text NOT NULL,
    applied_by text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    undone_by text,
    undone_at timestamptz,
    columns_left text[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (merchant_id, repair_id)
);
CREATE INDEX integrity_repairs_by_number ON loyalty.integrity_repairs (repair_id);
CREATE INDEX integrity_repairs_by_account ON loyalty.integrity_repairs (merchant_id, account_id);
COMMENT ON TABLE loyalty.integrity_repairs IS
'Columns of accounts that had drifted from an intact ledger and were set right, with what they were before.';
COMMENT ON COLUMN loyalty.integrity_repairs.columns_left IS
'What undoing it left as it was by then: a number that is another one since, points or stamps that are gone since.';
COMMENT ON COLUMN loyalty.integrity_repairs.last_seq IS
'The account''s last entry then. Where its balance was repaired, entries from first_seq to the one after last_seq may begin
with another balance than the one before ended with: it had drifted, and was set right.';

-- Rules as functions ----------------------------------------------------------------------------------------

CREATE FUNCTION loyalty.link_digest(balance bigint, seq bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    -- A balance after an entry. Of an unbroken chain all links cancel out but the first and the last: no sorting.
    SELECT hashint8extended(balance, seq)
$function$;

CREATE FUNCTION loyalty.links_digest(seq bigint, balance_before bigint, balance_after bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    -- Both ends of an entry: where the one before has to end, and where the next one has to begin.
    SELECT hashint8extended(balance_after, seq) # hashint8extended(balance_before, seq - 1)
$function$;

CREATE FUNCTION loyalty.entry_digest(
    seq bigint, kind text, points bigint, balance_after bigint, stamps integer, reference_type text, reference_id text,
    reference_seq integer, recorded_at timestamptz
) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    -- What an entry says. The functions are those of hash partitioning, which keep their values over versions. Of an instant
    -- as its distance from another one: PostgreSQL before 18 has no function for it that is the same in every time zone.
    SELECT hashtextextended(
        reference_id,
        hashtextextended(
            reference_type,
            hashtextextended(
                kind,
                interval_hash_extended(
                    recorded_at - timestamptz '2000-01-01 00:00:00+00',
                    hashint8extended(
                        points,
                        hashint8extended(
                            balance_after, hashint8extended((stamps::bigint << 32) # reference_seq::bigint, seq)
                        )
                    )
                )
            )
        )
    )
$function$;

CREATE FUNCTION loyalty.share_digest(points bigint, stamps integer, reference_id text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    -- A linear digest: what several entries of one order add up to has the sum of theirs, modulo 2^31 - 1. So points
    -- per order are compared without grouping by order.
    SELECT CAST(mod(mod(mod(points, 2147483647) + 1000003 * CAST(stamps AS bigint), 2147483647) * hashtext(reference_id),
        2147483647) AS integer)
$function$;

CREATE FUNCTION loyalty.redemption_share_digest(points bigint, entries integer, order_id text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    -- That of a redemption: other numbers than those of its order, so that both are summed as one.
    SELECT loyalty.share_digest(points, entries, 'redemption ' || order_id)
$function$;

CREATE FUNCTION loyalty.account_history(
    p_merchant_id text, p_account_id bigint, p_entries bigint, p_balance bigint
) RETURNS TABLE (
    last_seq bigint, last_balance bigint, points numeric, stamps bigint, missing bigint, broken bigint,
    first_broken_seq bigint, unsound bigint, jump numeric, evidence jsonb, expiries bigint
)
LANGUAGE sql STABLE ROWS 1
AS $function$
    -- What the entries of an account say, after the first p_entries that led to p_balance: how many are missing between
    -- them, how many don't begin where the one before ended, by how many points these jump in all, and how many don't add
    -- up in themselves. Where a balance had drifted and was repaired, the jumps there and back are no breaks.
    SELECT
        coalesce(max(e.seq), p_entries),
        coalesce((array_agg(e.balance_after ORDER BY e.seq DESC))[1], p_balance),
        coalesce(sum(e.points), 0),
        coalesce(sum(e.stamps), 0),
        coalesce(sum(e.seq - e.previous_seq - 1), 0)::bigint,
        count(*) FILTER (WHERE e.is_broken),
        min(e.seq) FILTER (WHERE e.is_broken),
        count(*) FILTER (WHERE e.balance_after <> e.balance_before + e.points),
        coalesce(
            sum(e.balance_before - e.previous_balance + e.balance_after - e.balance_before - e.points)
            FILTER (WHERE e.is_broken),
            0
        ),
        coalesce(
            jsonb_agg(
                jsonb_build_object(
                    'seq', e.seq, 'kind', e.kind, 'points', e.points, 'balance_before', e.balance_before,
                    'balance_after', e.balance_after, 'previous_seq', e.previous_seq,
                    'previous_balance', e.previous_balance
                )
                ORDER BY e.seq
            ) FILTER (WHERE e.is_broken AND e.place <= 5),
            '[]'
        ),
        count(*) FILTER (WHERE e.kind = 'expired' OR e.reference_type = 'expiry')
    FROM (
        SELECT
            *,
            sum(CASE WHEN f.is_broken THEN 1 ELSE 0 END) OVER (ORDER BY f.seq) AS place
        FROM (
            SELECT
                g.*,
                g.seq <> g.previous_seq + 1
                OR (
                    g.balance_before <> g.previous_balance
                    AND NOT EXISTS (
                        SELECT FROM loyalty.integrity_repairs AS p
                        WHERE p.merchant_id = p_merchant_id COLLATE "C" AND p.account_id = p_account_id
                            AND p.undone_at IS NULL AND g.seq BETWEEN p.first_seq AND p.last_seq + 1
                    )
                )
                OR g.balance_after <> g.balance_before + g.points AS is_broken
            FROM (
                SELECT
                    l.seq,
                    l.kind,
                    l.points,
                    l.stamps,
                    l.balance_before,
                    l.balance_after,
                    l.reference_type,
                    lag(l.seq, 1, p_entries) OVER (ORDER BY l.seq) AS previous_seq,
                    lag(l.balance_after, 1, p_balance) OVER (ORDER BY l.seq) AS previous_balance
                FROM loyalty.ledger_entries AS l
                WHERE l.merchant_id = p_merchant_id COLLATE "C" AND l.account_id = p_account_id AND l.seq > p_entries
            ) AS g
        ) AS f
    ) AS e
$function$;
COMMENT ON FUNCTION loyalty.account_history IS
'Whether the entries of an account continue each other, and what they add up to: for the proof and for repairs.';

CREATE FUNCTION loyalty.is_account_suspect(
    account_id bigint, balance bigint, stamp_count bigint, next_seq bigint, held bigint, last_expiry_seq bigint,
    is_debt_allowed boolean, base_entries bigint, base_balance bigint, base_stamps bigint, entries bigint, points numeric,
    stamps bigint, links bigint, is_adding_up boolean, expired_seq bigint, held_points numeric
) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    -- Whether an account (NULL: there is none) and the sums of its entries after its base are worth a closer look. An
    -- unbroken chain from the base to the account's balance leaves only the links at its two ends. Columns, not a row: a
    -- row would be built and taken apart for each account.
    SELECT account_id IS NULL
        OR balance <> base_balance + points
        OR stamp_count <> base_stamps + stamps
        OR next_seq - 1 <> base_entries + entries
        OR NOT is_adding_up
        OR links <> loyalty.link_digest(balance, next_seq - 1) # loyalty.link_digest(base_balance, base_entries)
        OR held <> held_points
        OR held < 0
        OR ((balance < 0 OR held > balance) AND NOT is_debt_allowed)
        -- Of an account whose base is not its beginning, only an expiry since then is known.
        OR last_expiry_seq <> CASE WHEN base_entries = 0 OR expired_seq > 0 THEN expired_seq ELSE last_expiry_seq END
$function$;

CREATE FUNCTION loyalty.date_problem(
    is_active boolean, balance bigint, last_activity_at timestamptz, expires_at timestamptz, warned_for timestamptz,
    points_expiration_days integer, timezone text
) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $function$
    -- What is wrong with the date of an account with points: none, before the rule's, or after it though nobody was told.
    -- Where points never expire any date is too early. Most dates are right: that is asked first.
    SELECT CASE
        WHEN NOT is_active OR balance <= 0 OR last_activity_at IS NULL THEN NULL
        WHEN expires_at = loyalty.expiry_instant(last_activity_at, points_expiration_days, timezone) THEN NULL
        WHEN coalesce(points_expiration_days, 0) <= 0 THEN CASE WHEN expires_at IS NOT NULL THEN 'date_too_early' END
        WHEN expires_at IS NULL THEN 'date_missing'
        WHEN expires_at < loyalty.expiry_instant(last_activity_at, points_expiration_days, timezone) THEN 'date_too_early'
        WHEN warned_for IS DISTINCT FROM expires_at THEN 'date_too_late'
    END
$function$;

CREATE FUNCTION loyalty.accepted_evidence(class text, evidence jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
AS $function$
    -- What of a finding's evidence has to stay, beside its points, so that it stays accepted. The balance and the last entry of
    -- an account go on while it is used; orders, redemptions, dates and mails say nothing but what is wrong.
    SELECT CASE
        WHEN class IN ('balance_differs', 'held_differs', 'debt_not_allowed') THEN NULL
        -- Where they are missing goes on, too: after the last entry, until there is another one.
        WHEN class = 'entries_missing' THEN evidence -> 'entries_missing'
        WHEN class = 'chain_broken' THEN evidence -> 'broken_entries'
        WHEN class = 'stamps_differ'
            THEN to_jsonb((evidence ->> 'stamps')::bigint - (evidence ->> 'sum_of_stamps')::bigint)
        WHEN class = 'next_seq_behind'
            THEN to_jsonb((evidence ->> 'next_seq')::bigint - (evidence ->> 'last_entry')::bigint)
        WHEN class = 'last_expiry_differs'
            THEN jsonb_build_array(evidence -> 'last_expiry_seq', evidence -> 'last_expiry')
        ELSE evidence
    END
$function$;

CREATE VIEW loyalty.settled_expiry_terms AS
SELECT
    k.merchant_id,
    k.points_expiration_days,
    k.timezone
FROM loyalty.expiry_terms AS k
CROSS JOIN LATERAL loyalty.merchant_terms(k.merchant_id) AS t
WHERE k.is_complete
    AND k.is_program_active
    AND t.is_program_active
    -- NULL, like 0: never.
    AND greatest(t.points_expiration_days, 0) = greatest(k.points_expiration_days, 0)
    AND k.timezone = CASE WHEN t.is_timezone_usable THEN t.timezone ELSE 'UTC' END
    -- A version that came and was taken back since has left dates that are not of these terms, as in sql/expiry/survey.sql.
    AND NOT EXISTS (
        SELECT 1
        FROM loyalty.programs AS p
        WHERE p.merchant_id = k.merchant_id
            AND p.valid_from <= now()
            AND greatest(p.valid_from, p.created_at) > k.recorded_at
    );
COMMENT ON VIEW loyalty.settled_expiry_terms IS
'Merchants whose dates were all computed by the terms of now, or who have none: others wait for their next night.';

CREATE FUNCTION loyalty.warnings_of_date(
    p_merchant_id text, p_account_id bigint, p_customer_id text, p_expires_at timestamptz, p_timezone text
) RETURNS TABLE (notification_id bigint)
LANGUAGE sql STABLE
AS $function$
    -- Warnings in the outbox that name this date to the customer, or to one who was merged into this one.
    SELECT n.notification_id
    FROM (
        SELECT p_account_id AS account_id
        UNION ALL
        SELECT f.account_id
        FROM loyalty.merged_customers AS m
        INNER JOIN loyalty.accounts AS f ON f.merchant_id = m.merchant_id AND f.customer_id = m.customer_id
        WHERE m.merchant_id = p_merchant_id COLLATE "C" AND m.into_customer_id = p_customer_id COLLATE "C"
    ) AS own
    INNER JOIN loyalty.notifications AS n
        ON n.merchant_id = p_merchant_id COLLATE "C"
        AND n.dedupe_key = loyalty.warning_key(own.account_id, p_expires_at, p_timezone) COLLATE "C"
    WHERE n.status <> 'void'
$function$;

CREATE FUNCTION loyalty.sealed_part(p_merchant_id text, p_account_id bigint)
RETURNS TABLE (entries bigint, entries_now bigint, points_more numeric, sealed_at timestamptz, is_unchanged boolean)
LANGUAGE sql STABLE ROWS 1
AS $function$
    -- How many entries of an account are sealed, how many of them are there, by how many points they are more than they were,
    -- and whether they are those. One row; without a seal nothing is sealed, and unchanged.
    SELECT
        coalesce(z.entries, 0),
        now_there.entries,
        now_there.points - coalesce(z.balance, 0),
        z.sealed_at,
        coalesce(z.entries, 0) = now_there.entries AND coalesce(z.digest, 0) = now_there.digest
    FROM (SELECT 1) AS one
    LEFT JOIN loyalty.account_seals AS z ON z.merchant_id = p_merchant_id COLLATE "C" AND z.account_id = p_account_id
    CROSS JOIN LATERAL (
        SELECT
            count(*) AS entries,
            coalesce(sum(e.points), 0) AS points,
            coalesce(
                bit_xor(
                    loyalty.entry_digest(
                        e.seq, e.kind, e.points, e.balance_after, e.stamps, e.reference_type, e.reference_id,
                        e.reference_seq, e.recorded_at
                    )
                ),
                0
            ) AS digest
        FROM loyalty.ledger_entries AS e
        WHERE e.merchant_id = p_merchant_id COLLATE "C" AND e.account_id = p_account_id AND e.seq <= z.entries
    ) AS now_there
$function$;

CREATE FUNCTION loyalty.last_expiry_in_force(p_merchant_id text, p_account_id bigint) RETURNS bigint
LANGUAGE sql STABLE
AS $function$
    SELECT coalesce(max(e.seq), 0)
    FROM loyalty.ledger_entries AS e
    WHERE e.merchant_id = p_merchant_id COLLATE "C" AND e.account_id = p_account_id AND e.kind = 'expired'
        AND NOT EXISTS (
            SELECT FROM loyalty.ledger_entries AS u
            WHERE u.merchant_id = e.merchant_id AND u.reference_type = 'expiry'
                AND u.reference_id = e.reference_id AND u.reference_seq = 2
        )
$function$;

CREATE FUNCTION loyalty.open_holds(p_merchant_id text, p_account_id bigint) RETURNS numeric
LANGUAGE sql STABLE
AS $function$
    SELECT coalesce(sum(h.points), 0)
    FROM loyalty.holds AS h
    WHERE h.merchant_id = p_merchant_id COLLATE "C" AND h.account_id = p_account_id AND h.status = 'open'
$function$;

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

GRANT SELECT, INSERT, UPDATE, DELETE
ON loyalty.findings, loyalty.merchant_jobs, loyalty.integrity_marks, loyalty.account_seals, loyalty.integrity_repairs
TO loyalty_pipeline;
GRANT SELECT ON loyalty.settled_expiry_terms, loyalty.account_merchants TO loyalty_pipeline;
GRANT SELECT
ON loyalty.findings, loyalty.merchant_jobs, loyalty.integrity_marks, loyalty.integrity_repairs, loyalty.account_merchants
TO loyalty_reader;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA loyalty FROM public;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA loyalty TO loyalty_pipeline;

RESET ROLE;
