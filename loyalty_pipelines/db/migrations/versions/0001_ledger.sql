-- The ledger and what feeds it. Ids are text COLLATE "C": integers and UUIDs both fit, and byte order makes
-- their indexes and sorts independent of the server's locale.

-- Roles are shared by all databases of a server, so another installation may have made them, even just now.
DO $roles$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY[
        'loyalty_owner', 'loyalty_pipeline', 'loyalty_app', 'loyalty_capture', 'loyalty_reader'
    ] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
        END;
    END LOOP;
    -- Since PostgreSQL 16 who creates a role is a member that may not use it; USAGE asks for the use.
    IF NOT pg_has_role(current_user, 'loyalty_owner', 'USAGE') THEN
        BEGIN
            GRANT loyalty_owner TO current_user;
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE EXCEPTION 'role loyalty_owner is there already, made by somebody else, and % may not use it', current_user
                USING ERRCODE = 'insufficient_privilege',
                      HINT = format('As a superuser: GRANT loyalty_owner, loyalty_capture TO %I', current_user);
        END;
    END IF;
END
$roles$;

CREATE SCHEMA IF NOT EXISTS loyalty;
ALTER SCHEMA loyalty OWNER TO loyalty_owner;
-- Alembic has just made it.
ALTER TABLE loyalty.schema_version OWNER TO loyalty_owner;

COMMENT ON SCHEMA loyalty IS 'The ledger of Loyalty Pipelines. Entries are never changed or removed.';

-- From here on everything belongs to loyalty_owner, which nobody can log in as.
SET LOCAL ROLE loyalty_owner;
-- Functions below read views that "loyalty sources apply" makes later.
SET LOCAL check_function_bodies = off;

-- Rules ---------------------------------------------------------------------------------------------------

CREATE TABLE loyalty.programs (
    merchant_id text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    valid_from timestamptz NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    points_per_unit numeric NOT NULL,
    unit_amount numeric NOT NULL DEFAULT 1,
    multiplier numeric NOT NULL DEFAULT 1,
    rounding text NOT NULL DEFAULT 'floor',
    point_value_amount numeric NOT NULL DEFAULT 0,
    points_expiration_days integer,
    stamps_per_order integer NOT NULL DEFAULT 0,
    stamp_min_amount numeric NOT NULL DEFAULT 0,
    stamp_target integer,
    clawback text NOT NULL DEFAULT 'clamp_to_zero',
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    PRIMARY KEY (merchant_id, version),
    -- In numeric, NaN is greater than every number: the upper bounds keep it and Infinity out.
    CONSTRAINT programs_points_per_unit_in_range CHECK (points_per_unit BETWEEN 0 AND 1000000),
    CONSTRAINT programs_unit_amount_in_range CHECK (unit_amount > 0 AND unit_amount <= 1000000000),
    CONSTRAINT programs_multiplier_in_range CHECK (multiplier BETWEEN 0 AND 1000),
    CONSTRAINT programs_point_value_in_range CHECK (point_value_amount BETWEEN 0 AND 1000000),
    CONSTRAINT programs_stamps_in_range CHECK (stamps_per_order BETWEEN 0 AND 1000),
    CONSTRAINT programs_stamp_minimum_in_range CHECK (stamp_min_amount BETWEEN 0 AND 1000000000000),
    CONSTRAINT programs_stamp_target_is_positive CHECK (stamp_target > 0),
    CONSTRAINT programs_expiration_in_range CHECK (points_expiration_days <= 36500),
    CONSTRAINT programs_rounding_is_known CHECK (rounding IN ('floor', 'half_up', 'ceil')),
    CONSTRAINT programs_clawback_is_known CHECK (clawback IN ('clamp_to_zero', 'allow_negative'))
);
COMMENT ON TABLE loyalty.programs IS
'Versioned rules of a merchant''s programme: the version in force when an order was paid applies to it.';

-- Accounts and their history ------------------------------------------------------------------------------

CREATE TABLE loyalty.accounts (
    merchant_id text COLLATE "C" NOT NULL,
    account_id bigint GENERATED ALWAYS AS IDENTITY,
    customer_id text COLLATE "C" NOT NULL,
    balance bigint NOT NULL DEFAULT 0,
    held bigint NOT NULL DEFAULT 0,
    stamp_count integer NOT NULL DEFAULT 0,
    next_seq bigint NOT NULL DEFAULT 1,
    last_expiry_seq bigint NOT NULL DEFAULT 0,
    is_active boolean NOT NULL DEFAULT true,
    is_debt_allowed boolean NOT NULL DEFAULT false,
    last_activity_at timestamptz,
    expires_at timestamptz,
    warned_for timestamptz,
    parked_reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, account_id),
    CONSTRAINT accounts_one_per_customer UNIQUE (merchant_id, customer_id),
    CONSTRAINT accounts_customer_is_named CHECK (customer_id <> ''),
    CONSTRAINT accounts_balance_is_no_debt CHECK (balance >= 0 OR is_debt_allowed),
    CONSTRAINT accounts_held_within_balance CHECK (held >= 0 AND (held <= balance OR is_debt_allowed)),
    CONSTRAINT accounts_stamps_are_counted CHECK (stamp_count >= 0),
    CONSTRAINT accounts_seq_starts_at_one CHECK (next_seq >= 1)
)
-- Every award updates the row in place: with a third of each page free, the update stays on its page (HOT).
WITH (fillfactor = 70);
COMMENT ON TABLE loyalty.accounts IS 'A customer in a merchant''s programme; balance is the sum of its ledger entries.';
COMMENT ON COLUMN loyalty.accounts.last_expiry_seq IS
'seq of the account''s last entry of kind "expired", 0 without one; written with it. What orders earned before it is gone.';

CREATE TABLE loyalty.ledger_entries (
    merchant_id text COLLATE "C" NOT NULL,
    account_id bigint NOT NULL,
    seq bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    points bigint NOT NULL,
    balance_before bigint NOT NULL,
    balance_after bigint NOT NULL,
    stamps integer NOT NULL DEFAULT 0,
    reference_type text COLLATE "C" NOT NULL,
    reference_id text COLLATE "C" NOT NULL,
    reference_seq integer NOT NULL,
    reason text,
    actor text NOT NULL,
    run_id text,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    recorded_xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (merchant_id, account_id, seq),
    -- The n-th entry of one reference exists once: whatever runs twice or at once, PostgreSQL refuses the second.
    CONSTRAINT ledger_entries_reference_once UNIQUE (merchant_id, reference_type, reference_id, reference_seq),
    CONSTRAINT ledger_entries_account_exists FOREIGN KEY (merchant_id, account_id)
    REFERENCES loyalty.accounts (merchant_id, account_id),
    CONSTRAINT ledger_entries_add_up CHECK (balance_after = balance_before + points),
    CONSTRAINT ledger_entries_change_something CHECK (points <> 0 OR stamps <> 0),
    CONSTRAINT ledger_entries_kind_is_known CHECK (
        kind IN ('earned', 'reversed', 're-earned', 'redeemed', 'restored', 'expired', 'adjusted', 'opening')
    )
);
COMMENT ON TABLE loyalty.ledger_entries IS
'One change of one balance, for ever: nobody can update, delete or truncate it.';

CREATE TABLE loyalty.order_points (
    merchant_id text COLLATE "C" NOT NULL,
    order_id text COLLATE "C" NOT NULL,
    account_id bigint NOT NULL,
    target_points bigint NOT NULL,
    in_force_points bigint NOT NULL,
    waived_points bigint NOT NULL DEFAULT 0,
    stamps_in_force integer NOT NULL DEFAULT 0,
    last_reference_seq integer NOT NULL DEFAULT 0,
    program_version integer NOT NULL,
    PRIMARY KEY (merchant_id, order_id, account_id),
    CONSTRAINT order_points_ties_up CHECK (in_force_points = target_points + waived_points),
    CONSTRAINT order_points_not_negative CHECK (target_points >= 0 AND waived_points >= 0 AND stamps_in_force >= 0)
);
COMMENT ON TABLE loyalty.order_points IS
'What an order deserves on an account, what the ledger shows for it, and what could not be taken back.';

-- What has to be looked at --------------------------------------------------------------------------------

CREATE TABLE loyalty.order_inbox (
    merchant_id text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C" NOT NULL DEFAULT '',
    inbox_id bigint GENERATED ALWAYS AS IDENTITY,
    order_id text COLLATE "C" NOT NULL,
    source text NOT NULL,
    enqueued_at timestamptz NOT NULL DEFAULT now(),
    -- By customer, so that one batch meets an account once with all its orders instead of once per order.
    PRIMARY KEY (merchant_id, customer_id, inbox_id)
)
WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.2);
COMMENT ON TABLE loyalty.order_inbox IS
'An order that changed and has not been looked at. Rows are only added and removed, never updated.';

CREATE TABLE loyalty.holds (
    merchant_id text COLLATE "C" NOT NULL,
    order_id text COLLATE "C" NOT NULL,
    account_id bigint NOT NULL,
    points bigint NOT NULL,
    status text NOT NULL DEFAULT 'open',
    reserved_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    settled_at timestamptz,
    PRIMARY KEY (merchant_id, order_id),
    CONSTRAINT holds_account_exists FOREIGN KEY (merchant_id, account_id)
    REFERENCES loyalty.accounts (merchant_id, account_id),
    CONSTRAINT holds_points_are_positive CHECK (points > 0),
    CONSTRAINT holds_status_is_known CHECK (status IN ('open', 'captured', 'released'))
);
COMMENT ON TABLE loyalty.holds IS 'Points reserved by a checkout in progress.';

CREATE TABLE loyalty.reconciliation_queue (
    merchant_id text COLLATE "C" NOT NULL,
    queue_id bigint GENERATED ALWAYS AS IDENTITY,
    operation text NOT NULL,
    order_id text COLLATE "C",
    customer_id text COLLATE "C",
    reason text NOT NULL,
    detail text,
    attempts integer NOT NULL DEFAULT 1,
    source_updated_at timestamptz,
    run_id text,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    resolution text,
    PRIMARY KEY (merchant_id, queue_id),
    CONSTRAINT reconciliation_queue_resolution_is_told CHECK ((resolved_at IS NULL) = (resolution IS NULL))
);
CREATE UNIQUE INDEX reconciliation_queue_one_open_item_per_order
ON loyalty.reconciliation_queue (merchant_id, order_id, operation) WHERE resolved_at IS NULL;
COMMENT ON TABLE loyalty.reconciliation_queue IS 'A point update that failed and must not be lost.';

CREATE TABLE loyalty.notifications (
    merchant_id text COLLATE "C" NOT NULL,
    notification_id bigint GENERATED ALWAYS AS IDENTITY,
    dedupe_key text COLLATE "C" NOT NULL,
    template text NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    payload jsonb NOT NULL DEFAULT '{}',
    status text NOT NULL DEFAULT 'pending',
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    sent_at timestamptz,
    PRIMARY KEY (merchant_id, notification_id),
    CONSTRAINT notifications_once_per_cause UNIQUE (merchant_id, dedupe_key),
    CONSTRAINT notifications_status_is_known CHECK (status IN ('pending', 'sent', 'failed', 'parked'))
);
COMMENT ON TABLE loyalty.notifications IS 'Outbox and e-mail log in one. Holds the customer''s id, never an address.';

CREATE TABLE loyalty.capture_cursors (
    name text PRIMARY KEY,
    polled_until timestamptz NOT NULL,
    polled_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE loyalty.capture_cursors IS 'How far polling has read the shop''s orders by updated_at.';

CREATE TABLE loyalty.award_batches (
    merchant_id text COLLATE "C" NOT NULL,
    batch_id bigint GENERATED ALWAYS AS IDENTITY,
    run_id text,
    actor text NOT NULL,
    rows_claimed integer NOT NULL,
    rows_repeated integer NOT NULL,
    orders_changed integer NOT NULL,
    orders_unchanged integer NOT NULL,
    orders_queued integer NOT NULL,
    orders_skipped integer NOT NULL,
    orders_missing integer NOT NULL,
    entries_written integer NOT NULL,
    points_changed bigint NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, batch_id),
    CONSTRAINT award_batches_add_up CHECK (
        rows_claimed = rows_repeated + orders_changed + orders_unchanged + orders_queued + orders_skipped
    )
);
CREATE INDEX award_batches_by_time ON loyalty.award_batches (recorded_at);
COMMENT ON TABLE loyalty.award_batches IS
'One row per committed award batch, written with it: what checks and metrics count.';

CREATE TABLE loyalty.source_mapping (
    mapping_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mapping_yaml text NOT NULL,
    is_withdrawn boolean NOT NULL DEFAULT false,
    applied_at timestamptz NOT NULL DEFAULT now(),
    applied_by text NOT NULL DEFAULT current_user
);
COMMENT ON TABLE loyalty.source_mapping IS 'Every mapping that was applied or withdrawn; the newest counts.';

-- History stays -------------------------------------------------------------------------------------------

CREATE FUNCTION loyalty.refuse_to_change_history() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    RAISE EXCEPTION '% on loyalty.% refused: ledger entries are never changed or removed', tg_op, tg_table_name
        USING ERRCODE = 'LP001',
              HINT = 'Correct a balance with a new entry of kind "adjusted".';
END
$function$;

CREATE TRIGGER ledger_entries_stay
BEFORE UPDATE OR DELETE OR TRUNCATE ON loyalty.ledger_entries
FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_to_change_history();

-- Rules as functions: each is written once and used by awarding, sweeping, checking and dry runs ----------------

CREATE VIEW loyalty.program_periods AS
SELECT
    *,
    lead(valid_from) OVER (PARTITION BY merchant_id ORDER BY valid_from, version) AS valid_until
FROM loyalty.programs;
COMMENT ON VIEW loyalty.program_periods IS
'The instants [valid_from, valid_until) at which a version applies. Of two with one valid_from the newer applies.';

CREATE FUNCTION loyalty.customer_hint(customer_id text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    -- What the inbox is sorted by. Cut, because a longer id than an index takes must not keep an order out of the inbox.
    SELECT left(coalesce(customer_id, ''), 200) COLLATE "C"
$function$;

CREATE FUNCTION loyalty.points_for(
    net_amount numeric, points_per_unit numeric, unit_amount numeric, multiplier numeric, rounding text
) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    -- The base rule floors (div), then the multiplier multiplies, then the rounding is applied once:
    -- 19.99 at 1 per 1.00 = 19; x 1.5 = 28 / 29 / 29 for floor / half_up / ceil. NaN and Infinity pass through.
    SELECT CASE rounding
        WHEN 'floor' THEN floor(div(net_amount * points_per_unit, unit_amount) * multiplier)
        WHEN 'ceil' THEN ceil(div(net_amount * points_per_unit, unit_amount) * multiplier)
        ELSE floor(div(net_amount * points_per_unit, unit_amount) * multiplier + 0.5)
    END
$function$;

CREATE FUNCTION loyalty.order_verdict(
    order_id text, status text, customer_id text, total_amount numeric, refunded_amount numeric,
    points_redeemed bigint, currency text, paid_at timestamptz, merchant_currency text, program loyalty.program_periods
) RETURNS TABLE (outcome text, detail text, target_points integer, target_stamps integer)
LANGUAGE sql STABLE PARALLEL SAFE
AS $function$
    -- OFFSET 0 keeps the planner from copying each inner expression into every place that uses it: the function
    -- is still inlined, at 1.1 instead of 3.8 microseconds an order.
    SELECT
        facts.outcome,
        CASE facts.outcome
            WHEN 'status_unrecognized' THEN 'the source mapping does not know the status of the order'
            WHEN 'paid_at_missing' THEN 'the order is paid but has no paid_at'
            WHEN 'paid_at_in_future' THEN 'the order was paid at ' || paid_at
            WHEN 'merchant_unknown' THEN 'loyalty_source.merchants has no currency for the merchant'
            WHEN 'currency_differs' THEN 'order in ' || coalesce(currency, 'no currency') || ', merchant in ' || merchant_currency
            WHEN 'amount_invalid' THEN 'total ' || coalesce(total_amount::text, 'NULL') || ', refunded '
                || coalesce(refunded_amount::text, '0') || ', points redeemed ' || coalesce(points_redeemed::text, 'NULL')
            WHEN 'points_out_of_range' THEN 'the order would earn ' || facts.points || ' points'
        END,
        CASE WHEN facts.outcome = 'earning' THEN facts.points::integer ELSE 0 END,
        CASE
            WHEN facts.outcome = 'earning' AND facts.net_amount > 0 AND facts.net_amount >= (program).stamp_min_amount
                THEN (program).stamps_per_order
            ELSE 0
        END
    FROM (
        SELECT
            basis.net_amount,
            basis.points,
            CASE
                WHEN order_id IS NULL THEN 'order_missing'
                WHEN status = 'unrecognized' OR status IS NULL THEN 'status_unrecognized'
                WHEN status NOT IN ('paid', 'partially_refunded') THEN 'unpaid'
                WHEN coalesce(customer_id, '') = '' THEN 'no_customer'
                WHEN paid_at IS NULL THEN 'paid_at_missing'
                WHEN paid_at > now() + interval '1 day' THEN 'paid_at_in_future'
                WHEN (program).version IS NULL OR NOT (program).is_active THEN 'no_programme'
                WHEN merchant_currency IS NULL THEN 'merchant_unknown'
                WHEN currency IS DISTINCT FROM merchant_currency THEN 'currency_differs'
                WHEN total_amount BETWEEN 0 AND 1000000000000 AND coalesce(refunded_amount, 0) BETWEEN 0 AND 1000000000000
                    AND points_redeemed >= 0
                    THEN CASE WHEN basis.points BETWEEN 0 AND 2000000000 THEN 'earning' ELSE 'points_out_of_range' END
                ELSE 'amount_invalid'
            END AS outcome
        FROM (
            SELECT
                net.net_amount,
                loyalty.points_for(
                    net.net_amount, (program).points_per_unit, (program).unit_amount, (program).multiplier, (program).rounding
                ) AS points
            FROM (
                SELECT greatest(
                    total_amount - coalesce(refunded_amount, 0) - points_redeemed * (program).point_value_amount, 0
                ) AS net_amount
                OFFSET 0
            ) AS net
            OFFSET 0
        ) AS basis
        OFFSET 0
    ) AS facts
$function$;
COMMENT ON FUNCTION loyalty.order_verdict IS
'What an order deserves: earning, unpaid, no_customer, no_programme, order_missing, or a reason to queue it.';

CREATE FUNCTION loyalty.points_to_take(
    in_force_points bigint, waived_points bigint, target_points bigint
) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    -- The change that brings an order from what is in force to what it deserves. What was waived is neither taken
    -- a second time nor given again: an order that is cancelled and paid again ends with its target, once.
    SELECT target_points - in_force_points + least(waived_points, greatest(in_force_points - target_points, 0))
$function$;

CREATE FUNCTION loyalty.expiry_instant(last_activity_at timestamptz, expiration_days integer, timezone text)
RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
AS $function$
    -- Local midnight after the last valid day (last activity + N days). NULL: the points never expire.
    SELECT CASE
        WHEN expiration_days > 0 THEN
            ((last_activity_at AT TIME ZONE timezone)::date + (expiration_days + 1))::timestamp AT TIME ZONE timezone
    END
$function$;

CREATE FUNCTION loyalty.is_timezone(name text) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $function$
BEGIN
    -- One unknown name would make every award of its merchant fail. pg_timezone_names reads hundreds of files for it.
    RETURN now() AT TIME ZONE name IS NOT NULL;
EXCEPTION WHEN data_exception THEN
    RETURN false;
END
$function$;

CREATE FUNCTION loyalty.is_order_different(
    outcome text, target_points integer, target_stamps integer, order_customer_id text, account_customer_id text,
    tracked_points bigint, tracked_stamps integer, queued_reason text
) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    -- Whether looking at an order again would change something. The account is one that has points of the order, or
    -- NULL where there is none.
    SELECT CASE
        -- An order that waits in the queue and can be decided by now: its item has to be closed.
        WHEN queued_reason IS NOT NULL AND outcome IN ('earning', 'unpaid', 'no_programme', 'no_customer') THEN true
        WHEN outcome IN ('no_customer', 'order_missing') THEN false
        WHEN outcome = 'earning' AND account_customer_id IS NULL THEN true
        WHEN outcome = 'earning' AND account_customer_id = order_customer_id
            THEN tracked_points <> target_points OR tracked_stamps <> target_stamps
        -- The order belongs to another customer by now, or is not paid: nothing of it may be left on the account.
        WHEN outcome IN ('earning', 'unpaid', 'no_programme')
            THEN coalesce(tracked_points, 0) <> 0 OR coalesce(tracked_stamps, 0) <> 0
        -- An order that can't be decided is in the queue with this reason, or has to get there.
        ELSE queued_reason IS DISTINCT FROM outcome
    END
$function$;

CREATE FUNCTION loyalty.is_without_points(p_merchant_id text, p_order_id text, p_customer_id text) RETURNS boolean
LANGUAGE sql STABLE
AS $function$
    -- Whether an order was never awarded to this customer, for orders that another customer has or had points of.
    SELECT NOT EXISTS (
        SELECT FROM loyalty.order_points AS op
        JOIN loyalty.accounts AS a ON a.merchant_id = op.merchant_id AND a.account_id = op.account_id
        WHERE op.merchant_id = p_merchant_id COLLATE "C" AND op.order_id = p_order_id COLLATE "C"
            AND a.customer_id = p_customer_id COLLATE "C"
    )
$function$;

CREATE FUNCTION loyalty.order_differences(
    p_merchant_id text, p_paid_from timestamptz DEFAULT NULL, p_paid_to timestamptz DEFAULT NULL
) RETURNS TABLE (
    order_id text, customer_id text, outcome text, points_missing bigint, queued_reason text,
    paid_at timestamptz, updated_at timestamptz
)
LANGUAGE sql STABLE
AS $function$
    -- Every order of the merchant whose ledger does not show what it deserves now. Used by the sweep, by dry runs and
    -- by the checks, so that they cannot disagree. Orders without a row here are right, or are gone from the shop.
    SELECT
        o.order_id,
        o.customer_id,
        v.outcome,
        loyalty.points_to_take(coalesce(op.in_force_points, 0), coalesce(op.waived_points, 0), v.target_points::bigint),
        q.reason,
        o.paid_at,
        -- A refund changes an order, though perhaps not its row.
        greatest(o.updated_at, refunds.refunded_at)
    FROM loyalty_source.orders_of_merchant(p_merchant_id) AS o
    LEFT JOIN loyalty_source.merchants AS m ON m.merchant_id = p_merchant_id COLLATE "C"
    LEFT JOIN (
        SELECT
            r.order_id,
            sum(r.amount) AS amount,
            max(r.refunded_at) AS refunded_at
        FROM loyalty_source.refunds_of_merchant(p_merchant_id) AS r
        GROUP BY r.order_id
    ) AS refunds ON refunds.order_id = o.order_id
    LEFT JOIN loyalty.program_periods AS p
        ON p.merchant_id = p_merchant_id COLLATE "C"
        AND o.paid_at >= p.valid_from
        AND (o.paid_at < p.valid_until OR p.valid_until IS NULL)
    LEFT JOIN (
        SELECT
            op.*,
            a.customer_id
        FROM loyalty.order_points AS op
        JOIN loyalty.accounts AS a ON a.merchant_id = op.merchant_id AND a.account_id = op.account_id
        WHERE op.merchant_id = p_merchant_id COLLATE "C"
    ) AS op ON op.order_id = o.order_id COLLATE "C"
    LEFT JOIN loyalty.reconciliation_queue AS q
        ON q.merchant_id = p_merchant_id COLLATE "C"
        AND q.order_id = o.order_id COLLATE "C"
        AND q.operation = 'award'
        AND q.resolved_at IS NULL
    CROSS JOIN LATERAL loyalty.order_verdict(
        o.order_id, o.status, o.customer_id, o.total_amount, refunds.amount, o.points_redeemed, o.currency, o.paid_at,
        m.currency, p
    ) AS v
    WHERE
        (p_paid_from IS NULL OR o.paid_at >= p_paid_from)
        AND (p_paid_to IS NULL OR o.paid_at < p_paid_to)
        AND (
            loyalty.is_order_different(
                v.outcome, v.target_points, v.target_stamps, o.customer_id COLLATE "C", op.customer_id,
                op.target_points, op.stamps_in_force, q.reason
            )
            -- An order that moved: nothing is left on the former account, and nothing is on the new one yet.
            OR (
                v.outcome = 'earning' AND op.customer_id <> o.customer_id COLLATE "C"
                AND loyalty.is_without_points(p_merchant_id, o.order_id, o.customer_id)
            )
        )
$function$;
COMMENT ON FUNCTION loyalty.order_differences IS
'The orders of a merchant whose points in the ledger are not what they deserve now; each is to be awarded again.';

CREATE FUNCTION loyalty.changed_orders(p_since timestamptz) RETURNS TABLE (merchant_id text, order_id text)
LANGUAGE sql STABLE
AS $function$
    -- What polling looks at, each order once. An order that PostgreSQL refused to process, or that is shown more than
    -- once, waits in the queue until the shop changes it or the sweep comes by: else every poll would bring it again.
    SELECT DISTINCT
        changed.merchant_id COLLATE "C",
        changed.order_id COLLATE "C"
    FROM (
        SELECT
            o.merchant_id,
            o.order_id,
            o.updated_at AS changed_at
        FROM loyalty_source.orders_changed_since(p_since) AS o
        UNION ALL
        SELECT
            r.merchant_id,
            r.order_id,
            r.refunded_at
        FROM loyalty_source.refunds_changed_since(p_since) AS r
    ) AS changed
    WHERE NOT EXISTS (
        SELECT FROM loyalty.reconciliation_queue AS q
        WHERE q.merchant_id = changed.merchant_id COLLATE "C"
            AND q.order_id = changed.order_id COLLATE "C"
            AND q.operation = 'award'
            AND q.resolved_at IS NULL
            AND q.reason IN ('database_error', 'order_ambiguous')
            AND q.last_seen_at >= changed.changed_at
    )
$function$;

-- Rights --------------------------------------------------------------------------------------------------

GRANT USAGE ON SCHEMA loyalty TO loyalty_pipeline, loyalty_app, loyalty_capture, loyalty_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA loyalty TO loyalty_pipeline;
REVOKE UPDATE, DELETE, TRUNCATE ON loyalty.ledger_entries FROM public, loyalty_pipeline;
GRANT SELECT ON ALL TABLES IN SCHEMA loyalty TO loyalty_reader;
-- The trigger on the shop's table may do this and nothing else.
GRANT INSERT ON loyalty.order_inbox TO loyalty_capture;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA loyalty FROM public;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA loyalty TO loyalty_pipeline, loyalty_reader;
GRANT EXECUTE ON FUNCTION loyalty.customer_hint TO loyalty_capture;
-- They read more of the shop than a dashboard may.
REVOKE EXECUTE ON FUNCTION loyalty.order_differences, loyalty.changed_orders FROM loyalty_reader;

RESET ROLE;
