-- Expiry: what is due, in which runs it was taken, and with which terms it was computed.
SET LOCAL ROLE loyalty_owner;
-- Functions below read views that "loyalty sources apply" makes later.
SET LOCAL check_function_bodies = off;

-- Warnings and expiry read what is due in this order, page by key; account_id keeps the pages of one instant apart.
CREATE INDEX accounts_expiring ON loyalty.accounts (merchant_id, expires_at, account_id);
COMMENT ON COLUMN loyalty.accounts.expires_at IS
'From this instant on the points are gone. NULL: they never expire, or there were none when it came.';
COMMENT ON COLUMN loyalty.accounts.warned_for IS
'The expires_at that the customer was warned about: points expire only where both are the same.';

-- One day of the ledger is a few pages: what a run took, what expired lately.
CREATE INDEX ledger_entries_by_time ON loyalty.ledger_entries USING brin (recorded_at);

-- Who was merged into a customer, asked for the orders that are on their way to that one.
CREATE INDEX merged_customers_into ON loyalty.merged_customers (merchant_id, into_customer_id);

CREATE TABLE loyalty.expiry_runs (
    merchant_id text COLLATE "C" NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    as_of timestamptz NOT NULL,
    actor text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    accounts_rescheduled integer NOT NULL DEFAULT 0,
    accounts_warned integer NOT NULL DEFAULT 0,
    points_warned bigint NOT NULL DEFAULT 0,
    accounts_moved integer NOT NULL DEFAULT 0,
    accounts_with_points integer,
    accounts_due integer,
    points_due bigint,
    accounts_waiting integer,
    accounts_usual integer,
    nights_compared integer,
    accounts_limit integer,
    is_accepted boolean NOT NULL DEFAULT false,
    is_stopped boolean NOT NULL DEFAULT false,
    accounts_expired integer NOT NULL DEFAULT 0,
    points_expired bigint NOT NULL DEFAULT 0,
    accounts_locked integer NOT NULL DEFAULT 0,
    accounts_forecast integer,
    points_forecast bigint,
    accounts_undone integer NOT NULL DEFAULT 0,
    points_undone bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (merchant_id, run_id)
);
CREATE INDEX expiry_runs_by_time ON loyalty.expiry_runs (merchant_id, started_at);
CREATE INDEX expiry_runs_by_run ON loyalty.expiry_runs (run_id);
CREATE INDEX expiry_runs_stopped ON loyalty.expiry_runs (merchant_id, started_at) WHERE is_stopped;
COMMENT ON TABLE loyalty.expiry_runs IS
'What one expiry run planned and did for one merchant; its counters grow with every chunk, in the chunk''s transaction.';
COMMENT ON COLUMN loyalty.expiry_runs.is_accepted IS
'A person let so many through: what went is no measure for other nights.';
COMMENT ON COLUMN loyalty.expiry_runs.accounts_forecast IS
'Accounts with points that will be due a day after as_of, unless somebody is active: the next run says how it was.';

CREATE TABLE loyalty.expiry_terms (
    merchant_id text COLLATE "C" PRIMARY KEY,
    points_expiration_days integer,
    timezone text NOT NULL,
    is_program_active boolean NOT NULL,
    -- Not where an account was refused: the next run computes all anew.
    is_complete boolean NOT NULL DEFAULT true,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE loyalty.expiry_terms IS
'The terms by which the expires_at of all accounts of a merchant were computed last; others mean computing them again.';

-- Rules as functions ----------------------------------------------------------------------------------------

CREATE FUNCTION loyalty.warning_lead(points_expiration_days integer, warning_days integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    -- How many days ahead a warning goes out: at most half the period, at least a day. NULL: nothing expires.
    SELECT CASE WHEN points_expiration_days > 0 THEN greatest(least(warning_days, points_expiration_days / 2), 1) END
$function$;

CREATE FUNCTION loyalty.local_midnight(at timestamptz, days_later integer, timezone text) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
AS $function$
    -- The beginning of a day in the merchant's zone, as an instant: whatever clocks do in between, a day is a date.
    SELECT ((at AT TIME ZONE timezone)::date + days_later)::timestamp AT TIME ZONE timezone
$function$;

CREATE FUNCTION loyalty.warning_key(account_id bigint, expires_at timestamptz, timezone text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $function$
    -- One mail per account and date, whatever runs twice.
    SELECT 'expiring/' || account_id || '/' || to_char(expires_at AT TIME ZONE timezone, 'YYYY-MM-DD')
$function$;

CREATE FUNCTION loyalty.may_expire(
    is_told boolean, has_waiting_orders boolean, is_warning_required boolean
) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    -- Whether points go that are past their date and that no checkout holds; of columns of loyalty.expiring_accounts.
    SELECT (is_told OR NOT is_warning_required) AND NOT has_waiting_orders
$function$;

CREATE VIEW loyalty.open_warnings AS
SELECT
    n.merchant_id,
    n.customer_id,
    n.notification_id,
    n.dedupe_key,
    n.leased_until
FROM loyalty.notifications AS n
WHERE n.template = 'loyalty_points_expiring' AND n.status IN ('pending', 'failed');
COMMENT ON VIEW loyalty.open_warnings IS
'Warnings that have not arrived: their customers'' points don''t expire. Who can''t be reached by mail has none here.';

CREATE VIEW loyalty.expiring_accounts AS
SELECT
    a.merchant_id,
    a.account_id,
    a.customer_id,
    a.balance,
    a.held,
    a.next_seq,
    a.expires_at,
    a.warned_for,
    -- What a checkout holds stays until it is captured or given back.
    a.balance > a.held AS has_free_points,
    a.balance > 0 AND coalesce(a.warned_for <> a.expires_at, true) AS is_to_be_warned,
    -- Counted, not EXISTS: for that the planner reads and hashes all open warnings of all merchants, page by page.
    coalesce(a.warned_for = a.expires_at, false)
    AND (
        SELECT count(*)
        FROM loyalty.open_warnings AS w
        WHERE w.merchant_id = a.merchant_id AND w.customer_id = a.customer_id
    ) = 0 AS is_told,
    -- An order that nobody has looked at may be the activity that saves them.
    (
        SELECT count(*)
        FROM (
            SELECT a.customer_id
            UNION ALL
            SELECT m.customer_id
            FROM loyalty.merged_customers AS m
            WHERE m.merchant_id = a.merchant_id AND m.into_customer_id = a.customer_id
        ) AS own
        INNER JOIN loyalty.order_inbox AS i
            ON i.merchant_id = a.merchant_id AND i.customer_id = loyalty.customer_hint(own.customer_id)
    ) > 0 AS has_waiting_orders
FROM loyalty.accounts AS a
WHERE a.is_active AND a.expires_at IS NOT NULL;
COMMENT ON VIEW loyalty.expiring_accounts IS
'Accounts with a date: who is to be warned of it, who was told, whose orders wait to be looked at. Inactive accounts are
neither warned nor expired.';

CREATE OR REPLACE FUNCTION loyalty.write_entry(
    p_merchant_id text, p_account_id bigint, p_kind text, p_points bigint, p_held bigint, p_stamps integer,
    p_reference_type text, p_reference_id text, p_reference_seq integer, p_reason text, p_actor text, p_run_id text,
    p_is_debt_allowed boolean, p_next_expiry timestamptz
) RETURNS bigint
LANGUAGE plpgsql
AS $function$
DECLARE
    v_now timestamptz := now();
    v_balance bigint;
    v_next_seq bigint;
BEGIN
    -- Balance and entry, on a row that the caller has locked: earning, spending, restoring and adjusting are all
    -- activity. p_held is the change of what is held. Returns the balance after it.
    UPDATE loyalty.accounts AS a
    SET
        balance = a.balance + p_points,
        held = a.held + p_held,
        stamp_count = a.stamp_count + p_stamps,
        next_seq = a.next_seq + 1,
        is_debt_allowed = (p_is_debt_allowed OR a.is_debt_allowed) AND a.balance + p_points < a.held + p_held,
        last_activity_at = greatest(a.last_activity_at, v_now),
        -- An account whose empty balance expired has no expires_at: what it gets now has one again.
        expires_at = CASE WHEN a.last_activity_at > v_now THEN coalesce(a.expires_at, p_next_expiry) ELSE p_next_expiry END,
        -- Nobody was warned of another date, also where it was the account's once before.
        warned_for = CASE WHEN a.last_activity_at > v_now THEN a.warned_for END
    WHERE a.merchant_id = p_merchant_id COLLATE "C" AND a.account_id = p_account_id
    RETURNING a.balance, a.next_seq INTO STRICT v_balance, v_next_seq;
    INSERT INTO loyalty.ledger_entries (
        merchant_id, account_id, seq, kind, points, balance_before, balance_after, stamps,
        reference_type, reference_id, reference_seq, reason, actor, run_id, occurred_at
    )
    VALUES (
        p_merchant_id, p_account_id, v_next_seq - 1, p_kind, p_points, v_balance - p_points, v_balance, p_stamps,
        p_reference_type, p_reference_id, p_reference_seq, p_reason, p_actor, p_run_id, v_now
    );
    RETURN v_balance;
END
$function$;

CREATE FUNCTION loyalty.undo_expiry(
    p_merchant_id text, p_account_id bigint, p_seq bigint, p_least_expires_at timestamptz, p_timezone text,
    p_is_mailed boolean, p_reason text, p_actor text, p_run_id text
) RETURNS bigint
LANGUAGE plpgsql
AS $function$
DECLARE
    v_taken loyalty.ledger_entries;
    v_account loyalty.accounts;
    v_expires_at timestamptz;
BEGIN
    -- Gives back what one entry of kind "expired" took, once: its points as an entry of kind "adjusted", and a date. After a
    -- merge the other account gets them. p_least_expires_at is the lead from today, or NULL where points don't expire any
    -- more: the date that has passed would take them again the next night. Returns the points; NULL: given back before.
    SELECT * INTO STRICT v_taken
    FROM loyalty.ledger_entries AS e
    WHERE e.merchant_id = p_merchant_id COLLATE "C" AND e.account_id = p_account_id AND e.seq = p_seq;
    v_account := loyalty.lock_account(
        p_merchant_id,
        (
            SELECT a.customer_id FROM loyalty.accounts AS a
            WHERE a.merchant_id = p_merchant_id COLLATE "C" AND a.account_id = p_account_id
        )
    );
    IF EXISTS (
        SELECT FROM loyalty.ledger_entries AS e
        WHERE e.merchant_id = v_taken.merchant_id AND e.reference_type = 'expiry'
            AND e.reference_id = v_taken.reference_id AND e.reference_seq = 2
    ) THEN
        RETURN NULL;
    END IF;
    v_expires_at := CASE
        WHEN p_least_expires_at IS NOT NULL THEN greatest(v_account.expires_at, p_least_expires_at)
    END;
    INSERT INTO loyalty.ledger_entries (
        merchant_id, account_id, seq, kind, points, balance_before, balance_after, reference_type, reference_id,
        reference_seq, reason, actor, run_id, occurred_at
    )
    VALUES (
        v_account.merchant_id, v_account.account_id, v_account.next_seq, 'adjusted', -v_taken.points, v_account.balance,
        v_account.balance - v_taken.points, 'expiry', v_taken.reference_id, 2, p_reason, p_actor, p_run_id, now()
    );
    UPDATE loyalty.accounts AS a
    SET
        balance = a.balance - v_taken.points,
        next_seq = a.next_seq + 1,
        is_debt_allowed = a.is_debt_allowed AND a.balance - v_taken.points < a.held,
        expires_at = v_expires_at,
        warned_for = CASE
            WHEN p_is_mailed AND v_expires_at = p_least_expires_at THEN v_expires_at
            WHEN v_expires_at = a.expires_at THEN a.warned_for
        END
    WHERE a.merchant_id = v_account.merchant_id AND a.account_id = v_account.account_id;
    -- What orders had earned before an expiry that is undone can be taken back again. It is a number of the account that
    -- had the points, which may have been merged since.
    UPDATE loyalty.accounts AS a
    SET
        last_expiry_seq = coalesce(
            (
                SELECT max(e.seq)
                FROM loyalty.ledger_entries AS e
                WHERE e.merchant_id = a.merchant_id AND e.account_id = a.account_id AND e.kind = 'expired'
                    AND NOT EXISTS (
                        SELECT FROM loyalty.ledger_entries AS u
                        WHERE u.merchant_id = e.merchant_id AND u.reference_type = 'expiry'
                            AND u.reference_id = e.reference_id AND u.reference_seq = 2
                    )
            ),
            0
        )
    WHERE a.merchant_id = v_taken.merchant_id AND a.account_id = v_taken.account_id;
    -- Nobody needs to hear of it who has not heard yet.
    UPDATE loyalty.notifications AS n
    SET status = 'void', settled_at = now(), last_error = 'the expiry was undone'
    WHERE n.merchant_id = v_taken.merchant_id AND n.dedupe_key = 'expired/' || v_taken.reference_id
        AND n.status IN ('pending', 'failed') AND (n.leased_until IS NULL OR n.leased_until <= now());
    -- Whose date is later by now is warned of it when its time comes.
    IF p_is_mailed AND v_expires_at = p_least_expires_at THEN
        INSERT INTO loyalty.notifications AS n (merchant_id, dedupe_key, template, customer_id, payload)
        VALUES (
            v_account.merchant_id, loyalty.warning_key(v_account.account_id, v_expires_at, p_timezone),
            'loyalty_points_expiring', v_account.customer_id,
            jsonb_build_object('points', v_account.balance - v_taken.points, 'expires_at', v_expires_at)
        )
        -- As in sql/expiry/warn_page.sql.
        ON CONFLICT (merchant_id, dedupe_key) DO UPDATE SET
            payload = excluded.payload, status = 'pending', attempts = 0, next_attempt_at = now(), waits_since = now(),
            settled_at = NULL, last_error = NULL
        WHERE n.status = 'void';
    END IF;
    RETURN -v_taken.points;
END
$function$;

-- Rights --------------------------------------------------------------------------------------------------

GRANT SELECT, INSERT, UPDATE, DELETE ON loyalty.expiry_runs, loyalty.expiry_terms TO loyalty_pipeline;
-- FOR UPDATE of a view's rows asks for the right to update it.
GRANT SELECT, UPDATE ON loyalty.open_warnings, loyalty.expiring_accounts TO loyalty_pipeline;
GRANT SELECT ON loyalty.expiry_runs, loyalty.expiry_terms, loyalty.open_warnings,
loyalty.expiring_accounts TO loyalty_reader;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA loyalty FROM public;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA loyalty TO loyalty_pipeline;

RESET ROLE;
