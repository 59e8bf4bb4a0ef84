-- Checkout functions, redemptions, the queue's retries, merged accounts.
SET LOCAL ROLE loyalty_owner;
-- Functions below read views that "loyalty sources apply" makes later.
SET LOCAL check_function_bodies = off;

-- Rules of redeeming --------------------------------------------------------------------------------------

ALTER TABLE loyalty.programs
ADD COLUMN redemption_block_points integer NOT NULL DEFAULT 1,
ADD COLUMN redemption_min_points integer NOT NULL DEFAULT 0,
ADD COLUMN redemption_max_percent numeric,
ADD CONSTRAINT programs_redemption_block_is_positive CHECK (redemption_block_points >= 1),
ADD CONSTRAINT programs_redemption_minimum_in_range CHECK (redemption_min_points >= 0),
ADD CONSTRAINT programs_redemption_maximum_in_range CHECK (redemption_max_percent >= 0 AND redemption_max_percent <= 100);

-- New columns of a view go to its end.
CREATE OR REPLACE VIEW loyalty.program_periods AS
SELECT
    merchant_id,
    version,
    valid_from,
    is_active,
    points_per_unit,
    unit_amount,
    multiplier,
    rounding,
    point_value_amount,
    points_expiration_days,
    stamps_per_order,
    stamp_min_amount,
    stamp_target,
    clawback,
    created_at,
    created_by,
    lead(valid_from) OVER (PARTITION BY merchant_id ORDER BY valid_from, version) AS valid_until,
    redemption_block_points,
    redemption_min_points,
    redemption_max_percent
FROM loyalty.programs;

-- Tables --------------------------------------------------------------------------------------------------

ALTER TABLE loyalty.accounts DROP COLUMN parked_reason;

ALTER TABLE loyalty.order_points
ADD COLUMN gone_points bigint NOT NULL DEFAULT 0,
ADD CONSTRAINT order_points_gone_not_negative CHECK (gone_points >= 0);
COMMENT ON COLUMN loyalty.order_points.gone_points IS
'Of the points in force, those that had expired on another account before it was merged into this one.';

ALTER TABLE loyalty.holds
ADD COLUMN last_reference_seq integer NOT NULL DEFAULT 0,
-- Its account is the row that the same transaction has locked, and accounts with entries can't be deleted.
DROP CONSTRAINT holds_account_exists,
DROP CONSTRAINT holds_status_is_known,
ADD CONSTRAINT holds_status_is_known CHECK (status IN ('open', 'captured', 'released', 'restored', 'waived'));
CREATE INDEX holds_open_by_expiry ON loyalty.holds (expires_at, merchant_id, order_id) WHERE status = 'open';
CREATE INDEX holds_open_by_account ON loyalty.holds (merchant_id, account_id) WHERE status = 'open';
COMMENT ON TABLE loyalty.holds IS
'What an order redeems: open (reserved), captured (in the ledger), released, restored (given back), waived (by hand).';
COMMENT ON COLUMN loyalty.holds.last_reference_seq IS
'How many ledger entries the redemption of this order has: redeemed, restored, and so on in turn.';

CREATE TABLE loyalty.checkout_updates (
    merchant_id text COLLATE "C" NOT NULL,
    order_id text COLLATE "C" NOT NULL,
    account_id bigint NOT NULL,
    points_earned bigint NOT NULL,
    points_redeemed bigint NOT NULL,
    order_total numeric,
    points_in_force bigint NOT NULL,
    balance_before bigint NOT NULL,
    balance_after bigint NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, order_id)
);
COMMENT ON TABLE loyalty.checkout_updates IS
'What update_customer_loyalty_points_atomic was asked for an order, and what it answered: the same call gets it again.';

CREATE TABLE loyalty.merged_customers (
    merchant_id text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    into_customer_id text COLLATE "C" NOT NULL,
    reason text NOT NULL,
    actor text NOT NULL,
    merged_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, customer_id),
    CONSTRAINT merged_customers_are_two CHECK (customer_id <> into_customer_id)
);
COMMENT ON TABLE loyalty.merged_customers IS
'Customers whose account was merged into another one: their orders and redemptions belong to that one since.';

ALTER TABLE loyalty.reconciliation_queue
ADD COLUMN points_earned bigint,
ADD COLUMN points_redeemed bigint,
ADD COLUMN order_total numeric,
-- Two reports with other numbers for one order are two items: neither may be lost.
ADD COLUMN fingerprint text COLLATE "C" NOT NULL DEFAULT '',
ADD COLUMN tries integer NOT NULL DEFAULT 0,
ADD COLUMN next_try_at timestamptz NOT NULL DEFAULT now() + interval '1 minute',
ADD COLUMN parked_at timestamptz,
ADD COLUMN resolved_by text,
ADD CONSTRAINT reconciliation_queue_operation_is_known CHECK (operation IN ('award', 'update', 'redeem'));
COMMENT ON COLUMN loyalty.reconciliation_queue.operation IS
'award: an order that could not be decided. update: a call that the shop reported. redeem: points a paid order owes.';
COMMENT ON COLUMN loyalty.reconciliation_queue.parked_at IS
'Since when no more tries are made, for this item nor for others of its customer, until somebody has looked.';
COMMENT ON COLUMN loyalty.reconciliation_queue.resolved_by IS 'Who resolved it by hand; NULL where the pipeline did.';

DROP INDEX loyalty.reconciliation_queue_one_open_item_per_order;
CREATE UNIQUE INDEX reconciliation_queue_one_open_item_per_order
ON loyalty.reconciliation_queue (merchant_id, order_id, operation, fingerprint) WHERE resolved_at IS NULL;
CREATE INDEX reconciliation_queue_due
ON loyalty.reconciliation_queue (next_try_at, queue_id) WHERE resolved_at IS NULL AND parked_at IS NULL;
-- What a drain reads, page by page: all open items of a customer together, oldest first.
CREATE INDEX reconciliation_queue_by_customer
ON loyalty.reconciliation_queue (merchant_id, customer_id, queue_id)
WHERE resolved_at IS NULL AND parked_at IS NULL AND operation <> 'award';
-- A longer id than an index takes must not keep an item from being parked.
UPDATE loyalty.reconciliation_queue SET customer_id = loyalty.customer_hint(customer_id)
WHERE operation = 'award' AND length(customer_id) > 200;
CREATE INDEX reconciliation_queue_parked
ON loyalty.reconciliation_queue (merchant_id, customer_id) WHERE resolved_at IS NULL AND parked_at IS NOT NULL;
CREATE INDEX reconciliation_queue_by_number ON loyalty.reconciliation_queue (queue_id);
CREATE INDEX reconciliation_queue_resolved_by_hand
ON loyalty.reconciliation_queue (merchant_id, order_id) WHERE resolved_by IS NOT NULL;

-- What the shop's own pages may show ------------------------------------------------------------------------

CREATE FUNCTION loyalty.spendable(balance bigint, held bigint, expires_at timestamptz, at timestamptz) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    -- Points past expires_at can't be spent, even before the expiry job has run; nor what another checkout holds.
    SELECT CASE WHEN expires_at <= at THEN 0 ELSE greatest(balance - held, 0) END
$function$;

CREATE VIEW loyalty.customer_points AS
SELECT
    a.merchant_id,
    a.customer_id,
    a.balance,
    a.held,
    loyalty.spendable(a.balance, a.held, a.expires_at, now()) AS spendable,
    a.stamp_count,
    a.last_activity_at,
    a.expires_at
FROM loyalty.accounts AS a
WHERE a.is_active
UNION ALL
SELECT
    m.merchant_id,
    m.customer_id,
    a.balance,
    a.held,
    loyalty.spendable(a.balance, a.held, a.expires_at, now()),
    a.stamp_count,
    a.last_activity_at,
    a.expires_at
FROM loyalty.merged_customers AS m
INNER JOIN loyalty.accounts AS a ON a.merchant_id = m.merchant_id AND a.customer_id = m.into_customer_id;
COMMENT ON VIEW loyalty.customer_points IS
'What each customer has; a customer who was merged into another one has what that one has.';

CREATE VIEW loyalty.customer_entries AS
SELECT
    e.merchant_id,
    a.customer_id,
    e.seq,
    e.kind,
    e.points,
    e.balance_after,
    e.stamps,
    e.reference_type,
    e.reference_id,
    e.occurred_at,
    e.recorded_at
FROM loyalty.ledger_entries AS e
INNER JOIN loyalty.accounts AS a ON a.merchant_id = e.merchant_id AND a.account_id = e.account_id;
COMMENT ON VIEW loyalty.customer_entries IS 'The history that a customer may see: no actors, no reasons.';

-- Rules as functions ----------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION loyalty.is_timezone(name text) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $function$
BEGIN
    -- One unknown name would make every award of its merchant fail. pg_timezone_names reads hundreds of files for it.
    -- PostgreSQL also takes "UTC+3", and means three hours west by it: a name with a digit is one of the IANA's few.
    IF name ~ '[0-9<]' AND name !~ '^(Etc/|SystemV/|GMT[+-]?0$|(EST5EDT|CST6CDT|MST7MDT|PST8PDT)$)' THEN
        RETURN false;
    END IF;
    RETURN now() AT TIME ZONE name IS NOT NULL;
EXCEPTION WHEN data_exception THEN
    RETURN false;
END
$function$;

CREATE TYPE loyalty.terms AS (
    currency text, timezone text, is_timezone_usable boolean, program_version integer, is_program_active boolean,
    points_per_unit numeric, unit_amount numeric, multiplier numeric, rounding text, point_value_amount numeric,
    points_expiration_days integer, stamps_per_order integer, stamp_min_amount numeric, is_debt_allowed boolean,
    redemption_block_points integer, redemption_min_points integer, redemption_max_percent numeric,
    next_expiry timestamptz
);

CREATE FUNCTION loyalty.merchant_terms(p_merchant_id text) RETURNS SETOF loyalty.terms
LANGUAGE sql STABLE ROWS 1
AS $function$
    -- The merchant and the version of its programme that is in force now (as loyalty.program_periods has it, without
    -- reading them all): one row, also for a merchant that the shop no longer lists. next_expiry: of points that are
    -- active now.
    SELECT
        m.currency,
        m.timezone,
        zone.is_usable,
        p.version,
        coalesce(p.is_active, false),
        p.points_per_unit,
        p.unit_amount,
        p.multiplier,
        p.rounding,
        p.point_value_amount,
        p.points_expiration_days,
        p.stamps_per_order,
        p.stamp_min_amount,
        coalesce(p.clawback = 'allow_negative', false),
        p.redemption_block_points,
        p.redemption_min_points,
        p.redemption_max_percent,
        loyalty.expiry_instant(
            now(), p.points_expiration_days, CASE WHEN zone.is_usable THEN m.timezone ELSE 'UTC' END
        )
    FROM (SELECT p_merchant_id COLLATE "C" AS merchant_id) AS wanted
    LEFT JOIN loyalty_source.merchants AS m ON m.merchant_id = wanted.merchant_id
    LEFT JOIN LATERAL (
        SELECT *
        FROM loyalty.programs AS v
        WHERE v.merchant_id = wanted.merchant_id AND v.valid_from <= now()
        ORDER BY v.valid_from DESC, v.version DESC
        LIMIT 1
    ) AS p ON true
    CROSS JOIN LATERAL (SELECT loyalty.is_timezone(m.timezone) AS is_usable OFFSET 0) AS zone
    LIMIT 1
$function$;

CREATE FUNCTION loyalty.points_to_redeem(
    requested bigint, spendable bigint, order_total numeric, point_value_amount numeric, max_percent numeric,
    block_points integer, min_points integer
) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $function$
DECLARE
    v_points bigint := greatest(least(requested, spendable), 0);
BEGIN
    -- min(requested, spendable, the cap as a share of the order), down to whole blocks, 0 below the minimum:
    -- 1050 with blocks of 100 is 1000; 400 under a minimum of 500 is 0. Without a total nothing is capped.
    IF max_percent IS NOT NULL AND point_value_amount > 0 AND order_total IS NOT NULL THEN
        v_points := least(v_points, div(order_total * max_percent, 100 * point_value_amount));
    END IF;
    v_points := v_points - v_points % block_points;
    RETURN CASE WHEN v_points < min_points THEN 0 ELSE v_points END;
END
$function$;

CREATE FUNCTION loyalty.is_order_undone(
    status text, total_amount numeric, refunded_amount numeric, points bigint, point_value_amount numeric
) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    -- Whether what an order redeemed is to be given back. Of a refunded order the part that was paid with points is
    -- given back in points, unless the refunds have paid its worth out in money.
    SELECT status IN ('cancelled', 'failed')
        OR (
            status = 'refunded'
            AND coalesce(refunded_amount, 0) <= total_amount - points * coalesce(point_value_amount, 0)
        )
$function$;

CREATE FUNCTION loyalty.redemption_step(
    hold_status text, hold_points bigint, order_status text, total_amount numeric, refunded_amount numeric,
    points_redeemed bigint, point_value_amount numeric
) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    -- What an order's redemption needs: give_back, take, or nothing (NULL). A paid order that says itself that it was
    -- paid with these points owes them, whatever became of the checkout: a crash must not make them a gift.
    SELECT CASE
        WHEN hold_status IN ('open', 'captured')
            AND loyalty.is_order_undone(order_status, total_amount, refunded_amount, hold_points, point_value_amount)
            THEN 'give_back'
        WHEN hold_status IN ('open', 'released', 'restored')
            AND order_status IN ('paid', 'partially_refunded')
            AND points_redeemed = hold_points
            THEN 'take'
        -- Given back when the order became refunded, and then its worth was paid out in money, too.
        WHEN hold_status = 'restored'
            AND order_status = 'refunded'
            AND points_redeemed = hold_points
            AND NOT loyalty.is_order_undone(order_status, total_amount, refunded_amount, hold_points, point_value_amount)
            THEN 'take'
    END
$function$;

CREATE FUNCTION loyalty.redemptions_due(p_merchant_id text, p_order_ids text[]) RETURNS TABLE (
    order_id text, account_id bigint, points bigint, step text
)
LANGUAGE sql STABLE
AS $function$
    -- What the redemptions of these orders need; few orders have one.
    SELECT
        h.order_id,
        h.account_id,
        h.points,
        steps.step
    FROM unnest(p_order_ids) AS wanted (order_id)
    JOIN loyalty.holds AS h ON h.merchant_id = p_merchant_id COLLATE "C" AND h.order_id = wanted.order_id COLLATE "C"
    CROSS JOIN LATERAL loyalty_source.order_by_id(h.merchant_id, h.order_id) AS o
    LEFT JOIN LATERAL (
        SELECT sum(r.amount) AS amount FROM loyalty_source.refunds_of_order(h.merchant_id, h.order_id) AS r
    ) AS refunds ON true
    LEFT JOIN loyalty.program_periods AS p
        ON p.merchant_id = h.merchant_id
        AND o.paid_at >= p.valid_from
        AND (o.paid_at < p.valid_until OR p.valid_until IS NULL)
    CROSS JOIN LATERAL (
        SELECT loyalty.redemption_step(
            h.status, h.points, o.status, o.total_amount, refunds.amount, o.points_redeemed, p.point_value_amount
        ) AS step
    ) AS steps
    WHERE steps.step IS NOT NULL
$function$;

CREATE FUNCTION loyalty.customer_in_ledger(p_merchant_id text, p_customer_id text) RETURNS text
LANGUAGE sql STABLE
AS $function$
    -- The customer whose account has the points: another one after a merge.
    SELECT coalesce(
        (
            SELECT m.into_customer_id
            FROM loyalty.merged_customers AS m
            WHERE m.merchant_id = p_merchant_id COLLATE "C" AND m.customer_id = p_customer_id COLLATE "C"
        ),
        p_customer_id
    ) COLLATE "C"
$function$;

-- Writing: what every movement of points outside an award batch goes through ------------------------------------

CREATE FUNCTION loyalty.write_entry(
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
        expires_at = CASE WHEN a.last_activity_at > v_now THEN a.expires_at ELSE p_next_expiry END
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

CREATE FUNCTION loyalty.post_entry(
    p_merchant_id text, p_account_id bigint, p_kind text, p_points bigint, p_held bigint, p_stamps integer,
    p_reference_type text, p_reference_id text, p_reference_seq integer, p_reason text, p_actor text, p_run_id text,
    p_is_debt_allowed boolean DEFAULT false
) RETURNS loyalty.ledger_entries
LANGUAGE plpgsql
AS $function$
DECLARE
    v_entry loyalty.ledger_entries;
BEGIN
    PERFORM loyalty.write_entry(
        p_merchant_id, p_account_id, p_kind, p_points, p_held, p_stamps, p_reference_type, p_reference_id, p_reference_seq,
        p_reason, p_actor, p_run_id, p_is_debt_allowed, (SELECT t.next_expiry FROM loyalty.merchant_terms(p_merchant_id) AS t)
    );
    SELECT * INTO STRICT v_entry
    FROM loyalty.ledger_entries AS e
    WHERE e.merchant_id = p_merchant_id COLLATE "C" AND e.reference_type = p_reference_type COLLATE "C"
        AND e.reference_id = p_reference_id COLLATE "C" AND e.reference_seq = p_reference_seq;
    RETURN v_entry;
END
$function$;

CREATE FUNCTION loyalty.lock_account(p_merchant_id text, p_customer_id text) RETURNS loyalty.accounts
LANGUAGE plpgsql
AS $function$
DECLARE
    v_account loyalty.accounts;
    v_customer_id text := p_customer_id;
BEGIN
    -- FOR NO KEY UPDATE: FOR UPDATE would block the foreign key checks of others' entries. All NULL: no account.
    LOOP
        SELECT * INTO v_account
        FROM loyalty.accounts AS a
        WHERE a.merchant_id = p_merchant_id COLLATE "C" AND a.customer_id = v_customer_id COLLATE "C"
        FOR NO KEY UPDATE;
        -- One that was merged, even while this waited for its lock, has a survivor.
        EXIT WHEN v_account.account_id IS NULL OR v_account.is_active
            OR loyalty.customer_in_ledger(p_merchant_id, v_customer_id) = v_customer_id;
        v_customer_id := loyalty.customer_in_ledger(p_merchant_id, v_customer_id);
    END LOOP;
    RETURN v_account;
END
$function$;

CREATE FUNCTION loyalty.lock_hold(p_merchant_id text, p_order_id text) RETURNS loyalty.holds
LANGUAGE plpgsql
AS $function$
DECLARE
    v_hold loyalty.holds;
    v_account_id bigint;
BEGIN
    SELECT h.account_id INTO v_account_id
    FROM loyalty.holds AS h
    WHERE h.merchant_id = p_merchant_id COLLATE "C" AND h.order_id = p_order_id COLLATE "C";
    IF NOT FOUND THEN
        RAISE EXCEPTION 'Order % of merchant % has no reserved or redeemed points', p_order_id, p_merchant_id
            USING ERRCODE = 'LP009', HINT = 'Call reserve_points or redeem_points first, with the same merchant and order.';
    END IF;
    -- First the account, then the hold: once it is released, another customer's checkout may take it over, and a merge
    -- moves it.
    LOOP
        PERFORM FROM loyalty.accounts AS a
        WHERE a.merchant_id = p_merchant_id COLLATE "C" AND a.account_id = v_account_id
        FOR NO KEY UPDATE;
        SELECT * INTO STRICT v_hold
        FROM loyalty.holds AS h
        WHERE h.merchant_id = p_merchant_id COLLATE "C" AND h.order_id = p_order_id COLLATE "C"
        FOR NO KEY UPDATE;
        EXIT WHEN v_hold.account_id = v_account_id;
        v_account_id := v_hold.account_id;
    END LOOP;
    RETURN v_hold;
END
$function$;

-- Errors of the checkout functions, each raised in one place ----------------------------------------------------

CREATE FUNCTION loyalty.is_id(value text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    SELECT coalesce(octet_length(value) BETWEEN 1 AND 1000, false)
$function$;

CREATE FUNCTION loyalty.is_points(value bigint, fewest bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    SELECT coalesce(value BETWEEN fewest AND 2000000000, false)
$function$;

CREATE FUNCTION loyalty.is_amount(value numeric) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    -- In numeric NaN is greater than every number: the upper bound keeps it and Infinity out. NULL: not given.
    SELECT coalesce(value BETWEEN 0 AND 1000000000000, true)
$function$;

CREATE FUNCTION loyalty.require_text(p_name text, p_value text) RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $function$
BEGIN
    IF NOT loyalty.is_id(p_value) THEN
        RAISE EXCEPTION '% is %: expected an id of 1 to 1,000 bytes', p_name,
            CASE WHEN p_value IS NULL THEN 'NULL' WHEN p_value = '' THEN 'empty' ELSE octet_length(p_value) || ' bytes long' END
            USING ERRCODE = 'LP004';
    END IF;
END
$function$;

CREATE FUNCTION loyalty.require_points(p_name text, p_value bigint, p_least bigint) RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $function$
BEGIN
    IF NOT loyalty.is_points(p_value, p_least) THEN
        RAISE EXCEPTION '% is %: expected a whole number of points from % to 2,000,000,000', p_name,
            coalesce(p_value::text, 'NULL'), p_least
            USING ERRCODE = 'LP004';
    END IF;
END
$function$;

CREATE FUNCTION loyalty.require_amount(p_name text, p_value numeric) RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $function$
BEGIN
    IF NOT loyalty.is_amount(p_value) THEN
        RAISE EXCEPTION '% is %: expected an amount from 0 to 1,000,000,000,000', p_name, p_value USING ERRCODE = 'LP004';
    END IF;
END
$function$;

CREATE FUNCTION loyalty.require_redemption(
    p_merchant_id text, p_customer_id text, p_order_id text, p_points bigint, p_order_total numeric
) RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $function$
BEGIN
    -- One comparison where all is well: a call for each argument costs a tenth of a redemption.
    IF loyalty.is_id(p_merchant_id) AND loyalty.is_id(p_customer_id) AND loyalty.is_id(p_order_id)
        AND loyalty.is_points(p_points, 1) AND loyalty.is_amount(p_order_total)
    THEN
        RETURN;
    END IF;
    PERFORM loyalty.require_text('merchant_id', p_merchant_id);
    PERFORM loyalty.require_text('customer_id', p_customer_id);
    PERFORM loyalty.require_text('order_id', p_order_id);
    PERFORM loyalty.require_points('points', p_points, 1);
    PERFORM loyalty.require_amount('order_total', p_order_total);
END
$function$;

CREATE FUNCTION loyalty.require_available(p_account loyalty.accounts, p_points bigint) RETURNS void
LANGUAGE plpgsql STABLE
AS $function$
DECLARE
    v_available bigint := coalesce(
        loyalty.spendable((p_account).balance, (p_account).held, (p_account).expires_at, now()), 0
    );
BEGIN
    IF p_points > v_available THEN
        RAISE EXCEPTION 'Insufficient loyalty points. Available: %, Requested: %', v_available, p_points
            USING ERRCODE = 'LP002',
                DETAIL = CASE
                    WHEN (p_account).account_id IS NULL THEN 'The customer has no account at this merchant.'
                    WHEN (p_account).expires_at <= now() THEN 'The points expired at ' || (p_account).expires_at || '.'
                    WHEN (p_account).held > 0 THEN 'Another ' || (p_account).held || ' points are held by checkouts in progress.'
                    ELSE 'The balance is ' || (p_account).balance || '.'
                END;
    END IF;
END
$function$;

CREATE FUNCTION loyalty.require_not_undone(p_merchant_id text, p_order_id text) RETURNS void
LANGUAGE plpgsql STABLE
AS $function$
DECLARE
    v_status text;
BEGIN
    SELECT o.status INTO v_status FROM loyalty_source.order_by_id(p_merchant_id, p_order_id) AS o;
    IF v_status IN ('cancelled', 'failed', 'refunded') THEN
        RAISE EXCEPTION 'Order % of merchant % is % in the shop: it can neither redeem nor earn points',
            p_order_id, p_merchant_id, v_status
            USING ERRCODE = 'LP008', HINT = 'Set the order''s status first, or use the id of the new order.';
    END IF;
END
$function$;

CREATE FUNCTION loyalty.require_redeemable(
    p_merchant_id text, p_account loyalty.accounts, p_order_id text, p_points bigint, p_order_total numeric,
    p_terms loyalty.terms
) RETURNS void
LANGUAGE plpgsql STABLE
AS $function$
DECLARE
    v_total numeric := p_order_total;
    v_most bigint;
BEGIN
    PERFORM loyalty.require_available(p_account, p_points);
    PERFORM loyalty.require_program(p_merchant_id, p_terms);
    IF p_terms.redemption_max_percent IS NOT NULL AND p_terms.point_value_amount > 0 AND v_total IS NULL THEN
        SELECT o.total_amount INTO v_total FROM loyalty_source.order_by_id(p_merchant_id, p_order_id) AS o;
        IF v_total IS NULL THEN
            RAISE EXCEPTION 'The order''s total is missing: merchant % lets points pay % %% of an order at most',
                p_merchant_id, p_terms.redemption_max_percent
                USING ERRCODE = 'LP004', HINT = 'Pass the order''s total.';
        END IF;
    END IF;
    v_most := loyalty.points_to_redeem(
        p_points, p_points, v_total, p_terms.point_value_amount, p_terms.redemption_max_percent,
        p_terms.redemption_block_points, p_terms.redemption_min_points
    );
    IF v_most <> p_points THEN
        RAISE EXCEPTION '% points can''t be redeemed on order %: the programme allows %', p_points, p_order_id, v_most
            USING ERRCODE = 'LP006',
                DETAIL = format(
                    'Blocks of %s, at least %s, at most %s of an order of %s.', p_terms.redemption_block_points,
                    p_terms.redemption_min_points, coalesce(p_terms.redemption_max_percent || ' %', 'all'),
                    coalesce(v_total::text, 'unknown total')
                ),
                HINT = 'Ask redeemable_points how many are.';
    END IF;
END
$function$;

CREATE FUNCTION loyalty.require_program(p_merchant_id text, p_terms loyalty.terms) RETURNS void
LANGUAGE plpgsql STABLE
AS $function$
BEGIN
    IF NOT p_terms.is_program_active THEN
        RAISE EXCEPTION 'Merchant % has no points programme in force', p_merchant_id
            USING ERRCODE = 'LP005', HINT = 'The operator sets one with: loyalty programs set MERCHANT --points-per-unit 1';
    END IF;
END
$function$;

CREATE FUNCTION loyalty.refuse_other_numbers(p_order_id text, p_known text) RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $function$
BEGIN
    RAISE EXCEPTION 'Order % has another request already: %', p_order_id, p_known
        USING ERRCODE = 'LP003',
            HINT = 'Repeat it with the same customer and numbers, or release it before asking for others.';
END
$function$;

-- Redemptions -------------------------------------------------------------------------------------------------

CREATE TYPE loyalty.hold_result AS (order_id text, points bigint, status text, expires_at timestamptz);
CREATE TYPE loyalty.redemption_result AS (order_id text, points bigint, balance_before bigint, balance_after bigint);
CREATE TYPE loyalty.update_result AS (
    merchant_id text, points_earned bigint, points_redeemed bigint, balance_before bigint, balance_after bigint
);

CREATE FUNCTION loyalty.take_hold(p_hold loyalty.holds, p_actor text, p_run_id text) RETURNS loyalty.redemption_result
LANGUAGE plpgsql
AS $function$
DECLARE
    v_entry loyalty.ledger_entries;
BEGIN
    -- A hold that is captured already returns the entry that did it. The caller holds the account's lock, and has
    -- checked the balance unless the hold is open: those points are reserved.
    IF p_hold.status = 'captured' THEN
        SELECT * INTO STRICT v_entry
        FROM loyalty.ledger_entries AS e
        WHERE e.merchant_id = p_hold.merchant_id AND e.reference_type = 'redemption'
            AND e.reference_id = p_hold.order_id AND e.reference_seq = p_hold.last_reference_seq;
    ELSE
        UPDATE loyalty.holds AS h
        SET status = 'captured', account_id = p_hold.account_id, points = p_hold.points, settled_at = now(),
            last_reference_seq = p_hold.last_reference_seq + 1
        WHERE h.merchant_id = p_hold.merchant_id AND h.order_id = p_hold.order_id;
        v_entry := loyalty.post_entry(
            p_hold.merchant_id, p_hold.account_id, 'redeemed', -p_hold.points,
            CASE WHEN p_hold.status = 'open' THEN -p_hold.points ELSE 0 END, 0,
            'redemption', p_hold.order_id, p_hold.last_reference_seq + 1, NULL, p_actor, p_run_id
        );
    END IF;
    RETURN (p_hold.order_id, p_hold.points, v_entry.balance_before, v_entry.balance_after);
END
$function$;

CREATE FUNCTION loyalty.capture_hold(
    p_merchant_id text, p_order_id text, p_is_due boolean, p_actor text, p_run_id text
) RETURNS loyalty.redemption_result
LANGUAGE plpgsql
AS $function$
DECLARE
    v_hold loyalty.holds;
    v_account loyalty.accounts;
BEGIN
    v_hold := loyalty.lock_hold(p_merchant_id, p_order_id);
    IF v_hold.status = 'waived' THEN
        PERFORM loyalty.refuse_other_numbers(p_order_id, v_hold.points || ' points, settled by hand');
    ELSIF v_hold.status IN ('released', 'restored') THEN
        -- What was given back may be spent by now, and what was given back for good is not taken again, unless the
        -- caller knows that the order owes it (p_is_due).
        IF NOT p_is_due THEN
            PERFORM loyalty.require_not_undone(p_merchant_id, p_order_id);
        END IF;
        SELECT * INTO STRICT v_account
        FROM loyalty.accounts AS a
        WHERE a.merchant_id = v_hold.merchant_id AND a.account_id = v_hold.account_id;
        PERFORM loyalty.require_available(v_account, v_hold.points);
    END IF;
    RETURN loyalty.take_hold(v_hold, p_actor, p_run_id);
END
$function$;

CREATE FUNCTION loyalty.give_back_hold(
    p_merchant_id text, p_order_id text, p_reason text, p_actor text, p_run_id text
) RETURNS loyalty.holds
LANGUAGE plpgsql
AS $function$
DECLARE
    v_hold loyalty.holds;
BEGIN
    -- Once, whoever comes first: the shop, a cancelled order, the hold's end. Repeating it changes nothing.
    v_hold := loyalty.lock_hold(p_merchant_id, p_order_id);
    IF v_hold.status = 'open' THEN
        UPDATE loyalty.accounts AS a
        SET held = a.held - v_hold.points, is_debt_allowed = a.is_debt_allowed AND a.balance < a.held - v_hold.points
        WHERE a.merchant_id = v_hold.merchant_id AND a.account_id = v_hold.account_id;
    ELSIF v_hold.status = 'captured' THEN
        PERFORM loyalty.post_entry(
            v_hold.merchant_id, v_hold.account_id, 'restored', v_hold.points, 0, 0,
            'redemption', v_hold.order_id, v_hold.last_reference_seq + 1, p_reason, p_actor, p_run_id
        );
    ELSE
        RETURN v_hold;
    END IF;
    UPDATE loyalty.holds AS h
    SET
        status = CASE v_hold.status WHEN 'open' THEN 'released' ELSE 'restored' END,
        last_reference_seq = h.last_reference_seq + CASE v_hold.status WHEN 'open' THEN 0 ELSE 1 END,
        settled_at = now()
    WHERE h.merchant_id = v_hold.merchant_id AND h.order_id = v_hold.order_id
    RETURNING * INTO v_hold;
    RETURN v_hold;
END
$function$;

CREATE FUNCTION loyalty.find_redemption(
    p_merchant_id text, p_account loyalty.accounts, p_order_id text, p_points bigint
) RETURNS loyalty.holds
LANGUAGE plpgsql
AS $function$
DECLARE
    v_hold loyalty.holds;
BEGIN
    -- The order's hold: in force, with the same numbers; or of an earlier try (released or restored) of an order that
    -- may try again; or all NULL. The caller has locked the account; the hold is locked too, because two customers may
    -- want a released one.
    SELECT * INTO v_hold
    FROM loyalty.holds AS h
    WHERE h.merchant_id = p_merchant_id COLLATE "C" AND h.order_id = p_order_id COLLATE "C"
    FOR NO KEY UPDATE;
    IF v_hold.status IN ('open', 'captured', 'waived') THEN
        IF v_hold.status = 'waived' OR v_hold.points <> p_points
            OR v_hold.account_id IS DISTINCT FROM (p_account).account_id
        THEN
            PERFORM loyalty.refuse_other_numbers(p_order_id, v_hold.points || ' points are ' || v_hold.status);
        END IF;
        RETURN v_hold;
    END IF;
    IF v_hold.status IS NOT NULL THEN
        PERFORM loyalty.require_not_undone(p_merchant_id, p_order_id);
    END IF;
    RETURN v_hold;
END
$function$;

CREATE FUNCTION loyalty.redeem(
    p_merchant_id text, p_account loyalty.accounts, p_order_id text, p_points bigint, p_order_total numeric,
    p_actor text, p_run_id text
) RETURNS loyalty.redemption_result
LANGUAGE plpgsql
AS $function$
DECLARE
    v_hold loyalty.holds;
    v_terms loyalty.terms;
    v_balance bigint;
BEGIN
    v_hold := loyalty.find_redemption(p_merchant_id, p_account, p_order_id, p_points);
    IF v_hold.status IN ('open', 'captured') THEN
        RETURN loyalty.take_hold(v_hold, p_actor, p_run_id);
    END IF;
    SELECT * INTO v_terms FROM loyalty.merchant_terms(p_merchant_id);
    PERFORM loyalty.require_redeemable(p_merchant_id, p_account, p_order_id, p_points, p_order_total, v_terms);
    IF v_hold.status IS NOT NULL THEN
        v_hold.account_id := (p_account).account_id;
        v_hold.points := p_points;
        RETURN loyalty.take_hold(v_hold, p_actor, p_run_id);
    END IF;
    INSERT INTO loyalty.holds (
        merchant_id, order_id, account_id, points, status, expires_at, settled_at, last_reference_seq
    )
    VALUES (p_merchant_id, p_order_id, (p_account).account_id, p_points, 'captured', now(), now(), 1)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        PERFORM loyalty.refuse_other_numbers(p_order_id, 'another customer redeems points on it at this moment');
    END IF;
    v_balance := loyalty.write_entry(
        p_merchant_id, (p_account).account_id, 'redeemed', -p_points, 0, 0, 'redemption', p_order_id, 1, NULL, p_actor,
        p_run_id, false, v_terms.next_expiry
    );
    RETURN (p_order_id, p_points, v_balance + p_points, v_balance);
END
$function$;

CREATE FUNCTION loyalty.reserve(
    p_merchant_id text, p_account loyalty.accounts, p_order_id text, p_points bigint, p_order_total numeric,
    p_expires_at timestamptz
) RETURNS loyalty.holds
LANGUAGE plpgsql
AS $function$
DECLARE
    v_hold loyalty.holds;
    v_terms loyalty.terms;
BEGIN
    v_hold := loyalty.find_redemption(p_merchant_id, p_account, p_order_id, p_points);
    IF v_hold.status = 'open' AND v_hold.expires_at <= now() THEN
        -- Past its time and not released yet: whoever reserves again counts on the whole time.
        UPDATE loyalty.holds AS h
        SET reserved_at = now(), expires_at = p_expires_at
        WHERE h.merchant_id = v_hold.merchant_id AND h.order_id = v_hold.order_id
        RETURNING * INTO v_hold;
    END IF;
    IF v_hold.status IN ('open', 'captured') THEN
        RETURN v_hold;
    END IF;
    SELECT * INTO v_terms FROM loyalty.merchant_terms(p_merchant_id);
    PERFORM loyalty.require_redeemable(p_merchant_id, p_account, p_order_id, p_points, p_order_total, v_terms);
    IF v_hold.status IS NULL THEN
        INSERT INTO loyalty.holds (merchant_id, order_id, account_id, points, expires_at)
        VALUES (p_merchant_id, p_order_id, (p_account).account_id, p_points, p_expires_at)
        ON CONFLICT DO NOTHING
        RETURNING * INTO v_hold;
        IF NOT FOUND THEN
            PERFORM loyalty.refuse_other_numbers(p_order_id, 'another customer redeems points on it at this moment');
        END IF;
    ELSE
        UPDATE loyalty.holds AS h
        SET account_id = (p_account).account_id, points = p_points, status = 'open', reserved_at = now(),
            expires_at = p_expires_at, settled_at = NULL
        WHERE h.merchant_id = v_hold.merchant_id AND h.order_id = v_hold.order_id
        RETURNING * INTO v_hold;
    END IF;
    UPDATE loyalty.accounts AS a
    SET held = a.held + p_points
    WHERE a.merchant_id = v_hold.merchant_id AND a.account_id = v_hold.account_id;
    RETURN v_hold;
END
$function$;

CREATE FUNCTION loyalty.take_or_queue(
    p_merchant_id text, p_order_id text, p_actor text, p_run_id text
) RETURNS boolean
LANGUAGE plpgsql
AS $function$
BEGIN
    -- Takes the points of a paid order, or queues it when they are spent: one order must not stop its batch.
    PERFORM loyalty.capture_hold(p_merchant_id, p_order_id, true, p_actor, p_run_id);
    UPDATE loyalty.reconciliation_queue AS q
    SET resolved_at = now(), resolution = 'the points were taken'
    WHERE q.merchant_id = p_merchant_id COLLATE "C" AND q.order_id = p_order_id COLLATE "C"
        AND q.operation = 'redeem' AND q.resolved_at IS NULL;
    RETURN true;
EXCEPTION WHEN SQLSTATE 'LP002' THEN
    INSERT INTO loyalty.reconciliation_queue AS q (
        merchant_id, operation, order_id, customer_id, reason, detail, points_redeemed, run_id
    )
    SELECT h.merchant_id, 'redeem', h.order_id, a.customer_id, 'insufficient_points', SQLERRM, h.points, p_run_id
    FROM loyalty.holds AS h
    JOIN loyalty.accounts AS a ON a.merchant_id = h.merchant_id AND a.account_id = h.account_id
    WHERE h.merchant_id = p_merchant_id COLLATE "C" AND h.order_id = p_order_id COLLATE "C"
    ON CONFLICT (merchant_id, order_id, operation, fingerprint) WHERE resolved_at IS NULL
    DO UPDATE SET detail = excluded.detail, attempts = q.attempts + 1, last_seen_at = now(), run_id = excluded.run_id;
    RETURN false;
END
$function$;

-- One call for a whole checkout -------------------------------------------------------------------------------

CREATE FUNCTION loyalty.merchant_of(p_customer_id text, p_order_id text) RETURNS text
LANGUAGE plpgsql STABLE
AS $function$
DECLARE
    v_found text[];
    v_where text;
BEGIN
    -- The merchant with the order, else the one with the customer: by its account, or by the shop's customers, which may
    -- take as long as reading them.
    v_where := 'order ' || p_order_id;
    SELECT array_agg(DISTINCT p.merchant_id ORDER BY p.merchant_id) INTO v_found
    FROM (
        SELECT v.merchant_id FROM loyalty.programs AS v
        UNION
        SELECT m.merchant_id FROM loyalty_source.merchants AS m
    ) AS p
    CROSS JOIN LATERAL loyalty_source.order_by_id(p.merchant_id, p_order_id) AS o;
    IF v_found IS NULL THEN
        v_where := 'customer ' || p_customer_id;
        SELECT array_agg(DISTINCT c.merchant_id ORDER BY c.merchant_id) INTO v_found
        FROM (
            SELECT a.merchant_id
            FROM (SELECT DISTINCT v.merchant_id FROM loyalty.programs AS v) AS p
            JOIN loyalty.accounts AS a ON a.merchant_id = p.merchant_id AND a.customer_id = p_customer_id COLLATE "C"
            UNION
            SELECT k.merchant_id
            FROM loyalty_source.customers AS k
            WHERE k.customer_id = p_customer_id COLLATE "C"
        ) AS c;
    END IF;
    IF v_found IS NULL THEN
        RAISE EXCEPTION 'Neither order % nor customer % belongs to a merchant that is known', p_order_id, p_customer_id
            USING ERRCODE = 'LP007', HINT = 'Pass the merchant, or commit the order first.';
    ELSIF cardinality(v_found) > 1 THEN
        RAISE EXCEPTION '% belongs to % merchants: %', v_where, cardinality(v_found), array_to_string(v_found[1:5], ', ')
            USING ERRCODE = 'LP007', HINT = 'Pass the merchant.';
    END IF;
    RETURN v_found[1];
END
$function$;

CREATE FUNCTION loyalty.require_update(
    p_customer_id text, p_points_earned bigint, p_points_redeemed bigint, p_order_id text, p_order_total numeric
) RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $function$
BEGIN
    PERFORM loyalty.require_text('customer_id', p_customer_id);
    PERFORM loyalty.require_text('order_id', p_order_id);
    PERFORM loyalty.require_points('points_earned', p_points_earned, 0);
    PERFORM loyalty.require_points('points_redeemed', p_points_redeemed, 0);
    PERFORM loyalty.require_amount('order_total', p_order_total);
END
$function$;

CREATE FUNCTION loyalty.apply_update(
    p_merchant_id text, p_customer_id text, p_points_earned bigint, p_points_redeemed bigint, p_order_id text,
    p_order_total numeric, p_actor text, p_run_id text, OUT result loyalty.update_result, OUT is_written boolean
)
LANGUAGE plpgsql
AS $function$
DECLARE
    v_account loyalty.accounts;
    v_prior loyalty.checkout_updates;
    v_is_in_force boolean;
    v_is_same boolean;
    v_order_customer_id text;
    v_now_on_account loyalty.accounts;
    v_in_force bigint := 0;
BEGIN
    -- Lock, check, write: the redemption and then the earning, each an entry of its own.
    SELECT o.customer_id INTO v_order_customer_id FROM loyalty_source.order_by_id(p_merchant_id, p_order_id) AS o;
    IF v_order_customer_id <> ''
        AND loyalty.customer_in_ledger(p_merchant_id, v_order_customer_id)
        <> loyalty.customer_in_ledger(p_merchant_id, p_customer_id)
    THEN
        RAISE EXCEPTION 'Order % of merchant % belongs to customer %, not to %',
            p_order_id, p_merchant_id, v_order_customer_id, p_customer_id
            USING ERRCODE = 'LP011', HINT = 'Pass the customer of the order.';
    END IF;
    v_account := loyalty.lock_account(p_merchant_id, p_customer_id);
    IF v_account.account_id IS NULL AND p_points_earned > 0 THEN
        INSERT INTO loyalty.accounts (merchant_id, customer_id) VALUES (p_merchant_id, p_customer_id) ON CONFLICT DO NOTHING;
        v_account := loyalty.lock_account(p_merchant_id, p_customer_id);
    END IF;
    is_written := false;
    IF v_account.account_id IS NOT NULL THEN
        -- The first writes the request down, and everybody else compares with it, another customer too.
        INSERT INTO loyalty.checkout_updates (
            merchant_id, order_id, account_id, points_earned, points_redeemed, order_total, points_in_force,
            balance_before, balance_after
        )
        VALUES (
            p_merchant_id, p_order_id, v_account.account_id, p_points_earned, p_points_redeemed, p_order_total, 0,
            v_account.balance, v_account.balance
        )
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            SELECT * INTO STRICT v_prior
            FROM loyalty.checkout_updates AS u
            WHERE u.merchant_id = p_merchant_id COLLATE "C" AND u.order_id = p_order_id COLLATE "C";
            -- What it redeemed may have been given back since: then it may be redeemed once more, with other numbers too.
            v_is_in_force := v_prior.points_redeemed = 0 OR EXISTS (
                SELECT FROM loyalty.holds AS h
                WHERE h.merchant_id = p_merchant_id COLLATE "C" AND h.order_id = p_order_id COLLATE "C"
                    AND h.status IN ('captured', 'waived')
            );
            v_is_same := (v_prior.points_earned, v_prior.points_redeemed, v_prior.order_total)
                IS NOT DISTINCT FROM (p_points_earned, p_points_redeemed, p_order_total);
            IF v_prior.account_id <> v_account.account_id OR (v_is_in_force AND NOT v_is_same) THEN
                PERFORM loyalty.refuse_other_numbers(
                    p_order_id,
                    format(
                        'earned %s, redeemed %s, total %s', v_prior.points_earned, v_prior.points_redeemed,
                        coalesce(v_prior.order_total::text, 'not given')
                    )
                );
            END IF;
            IF v_is_in_force THEN
                result := (
                    p_merchant_id, v_prior.points_in_force, v_prior.points_redeemed, v_prior.balance_before,
                    v_prior.balance_after
                );
                RETURN;
            END IF;
        END IF;
    END IF;
    PERFORM loyalty.require_not_undone(p_merchant_id, p_order_id);
    IF p_points_redeemed > 0 THEN
        PERFORM loyalty.redeem(
            p_merchant_id, v_account, p_order_id, p_points_redeemed, p_order_total, p_actor, p_run_id
        );
    END IF;
    IF p_points_earned > 0 THEN
        -- What the sensor has awarded already is not earned again; what the shop says later, the sensor corrects.
        SELECT sum(op.target_points) INTO v_in_force
        FROM loyalty.order_points AS op
        WHERE op.merchant_id = p_merchant_id COLLATE "C" AND op.order_id = p_order_id COLLATE "C";
        IF v_in_force IS NULL THEN
            PERFORM loyalty.earn_at_checkout(
                p_merchant_id, v_account.account_id, p_points_earned, p_points_redeemed, p_order_id, p_order_total,
                p_actor, p_run_id
            );
            v_in_force := p_points_earned;
        END IF;
    END IF;
    SELECT * INTO v_now_on_account
    FROM loyalty.accounts AS a
    WHERE a.merchant_id = p_merchant_id COLLATE "C" AND a.account_id = v_account.account_id;
    UPDATE loyalty.checkout_updates AS u
    SET points_earned = p_points_earned, points_redeemed = p_points_redeemed, order_total = p_order_total,
        points_in_force = v_in_force, balance_before = v_account.balance, balance_after = v_now_on_account.balance
    WHERE u.merchant_id = p_merchant_id COLLATE "C" AND u.order_id = p_order_id COLLATE "C";
    result := (
        p_merchant_id, v_in_force, p_points_redeemed, coalesce(v_account.balance, 0), coalesce(v_now_on_account.balance, 0)
    );
    is_written := coalesce(v_now_on_account.next_seq > v_account.next_seq, false);
END
$function$;

CREATE FUNCTION loyalty.earn_at_checkout(
    p_merchant_id text, p_account_id bigint, p_points_earned bigint, p_points_redeemed bigint, p_order_id text,
    p_order_total numeric, p_actor text, p_run_id text
) RETURNS void
LANGUAGE plpgsql
AS $function$
DECLARE
    terms loyalty.terms;
    v_net numeric;
    v_stamps integer;
BEGIN
    SELECT * INTO terms FROM loyalty.merchant_terms(p_merchant_id);
    PERFORM loyalty.require_program(p_merchant_id, terms);
    v_net := p_order_total - p_points_redeemed * terms.point_value_amount;
    v_stamps := CASE WHEN v_net > 0 AND v_net >= terms.stamp_min_amount THEN terms.stamps_per_order ELSE 0 END;
    INSERT INTO loyalty.order_points (
        merchant_id, order_id, account_id, target_points, in_force_points, stamps_in_force, last_reference_seq,
        program_version
    )
    VALUES (p_merchant_id, p_order_id, p_account_id, p_points_earned, p_points_earned, v_stamps, 1, terms.program_version);
    PERFORM loyalty.write_entry(
        p_merchant_id, p_account_id, 'earned', p_points_earned, 0, v_stamps, 'order', p_order_id, 1, 'earned at checkout',
        p_actor, p_run_id, false, terms.next_expiry
    );
END
$function$;

-- What a shop calls ---------------------------------------------------------------------------------------------
-- Each runs with the rights of its owner and a pinned search_path, and builds no SQL from what it is given.

CREATE FUNCTION loyalty.calculate_points_to_earn(
    p_merchant_id text, p_amount numeric, p_currency text DEFAULT NULL, p_points_redeemed bigint DEFAULT 0
) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    terms loyalty.terms;
    v_points numeric;
BEGIN
    PERFORM loyalty.require_text('merchant_id', p_merchant_id);
    IF p_amount IS NULL THEN
        RAISE EXCEPTION 'amount is NULL: expected an amount from 0 to 1,000,000,000,000' USING ERRCODE = 'LP004';
    END IF;
    PERFORM loyalty.require_amount('amount', p_amount);
    PERFORM loyalty.require_points('points_redeemed', p_points_redeemed, 0);
    SELECT * INTO terms FROM loyalty.merchant_terms(p_merchant_id);
    IF p_currency IS DISTINCT FROM terms.currency AND p_currency IS NOT NULL THEN
        RAISE EXCEPTION 'The amount is in %, but merchant % earns in %', p_currency, p_merchant_id,
            coalesce(terms.currency, 'no currency that the shop''s merchants table shows')
            USING ERRCODE = 'LP010', HINT = 'Amounts are not converted: such an order earns no points.';
    END IF;
    IF NOT terms.is_program_active THEN
        RETURN 0;
    END IF;
    v_points := loyalty.points_for(
        greatest(p_amount - p_points_redeemed * terms.point_value_amount, 0),
        terms.points_per_unit, terms.unit_amount, terms.multiplier, terms.rounding
    );
    IF v_points > 2000000000 THEN
        RAISE EXCEPTION 'An order of % would earn % points: at most 2,000,000,000 are possible', p_amount, v_points
            USING ERRCODE = 'LP004';
    END IF;
    RETURN v_points::bigint;
END
$function$;
COMMENT ON FUNCTION loyalty.calculate_points_to_earn IS
'The points that an order of this amount, paid now, would earn; 0 without a programme. LP004, LP010.';

CREATE FUNCTION loyalty.spendable_points(
    p_merchant_id text, p_customer_id text, p_at timestamptz DEFAULT now()
) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    PERFORM loyalty.require_text('merchant_id', p_merchant_id);
    PERFORM loyalty.require_text('customer_id', p_customer_id);
    RETURN coalesce(
        (
            SELECT loyalty.spendable(a.balance, a.held, a.expires_at, coalesce(p_at, now()))
            FROM loyalty.accounts AS a
            WHERE a.merchant_id = p_merchant_id COLLATE "C"
                AND a.customer_id = loyalty.customer_in_ledger(p_merchant_id, p_customer_id)
        ),
        0
    );
END
$function$;
COMMENT ON FUNCTION loyalty.spendable_points IS
'Of the customer''s present points, those that are free and not expired at an instant; 0 without an account. LP004.';

CREATE FUNCTION loyalty.redeemable_points(
    p_merchant_id text, p_customer_id text, p_points bigint DEFAULT NULL, p_order_total numeric DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    terms loyalty.terms;
    v_spendable bigint := loyalty.spendable_points(p_merchant_id, p_customer_id);
BEGIN
    PERFORM loyalty.require_points('points', coalesce(p_points, 0), 0);
    PERFORM loyalty.require_amount('order_total', p_order_total);
    SELECT * INTO terms FROM loyalty.merchant_terms(p_merchant_id);
    IF NOT terms.is_program_active THEN
        RETURN 0;
    END IF;
    RETURN loyalty.points_to_redeem(
        least(coalesce(p_points, v_spendable), 2000000000), v_spendable, p_order_total, terms.point_value_amount,
        terms.redemption_max_percent, terms.redemption_block_points, terms.redemption_min_points
    );
END
$function$;
COMMENT ON FUNCTION loyalty.redeemable_points IS
'How many of the wanted points (NULL: of all) an order of this total may redeem: whole blocks, minimum, cap. LP004.';

CREATE FUNCTION loyalty.reserve_points(
    p_merchant_id text, p_customer_id text, p_order_id text, p_points bigint,
    p_ttl interval DEFAULT '15 minutes', p_order_total numeric DEFAULT NULL
) RETURNS loyalty.hold_result
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    v_hold loyalty.holds;
BEGIN
    PERFORM loyalty.require_redemption(p_merchant_id, p_customer_id, p_order_id, p_points, p_order_total);
    IF p_ttl IS NULL OR p_ttl < interval '1 second' OR p_ttl > interval '30 days' THEN
        RAISE EXCEPTION 'ttl is %: expected an interval from 1 second to 30 days', coalesce(p_ttl::text, 'NULL')
            USING ERRCODE = 'LP004';
    END IF;
    v_hold := loyalty.reserve(
        p_merchant_id, loyalty.lock_account(p_merchant_id, p_customer_id), p_order_id, p_points, p_order_total, now() + p_ttl
    );
    RETURN (v_hold.order_id, v_hold.points, v_hold.status, v_hold.expires_at);
END
$function$;
COMMENT ON FUNCTION loyalty.reserve_points IS
'Holds points for an order until they are captured, released, or p_ttl is over. Once per order. LP002 to LP008.';

CREATE FUNCTION loyalty.capture_points(p_merchant_id text, p_order_id text) RETURNS loyalty.redemption_result
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    PERFORM loyalty.require_text('merchant_id', p_merchant_id);
    PERFORM loyalty.require_text('order_id', p_order_id);
    RETURN loyalty.capture_hold(p_merchant_id, p_order_id, false, 'checkout', NULL);
END
$function$;
COMMENT ON FUNCTION loyalty.capture_points IS
'Takes the points that an order has reserved; after their release only if they are still there. LP002 to LP009.';

CREATE FUNCTION loyalty.release_points(p_merchant_id text, p_order_id text) RETURNS loyalty.hold_result
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    v_hold loyalty.holds;
    v_status text;
BEGIN
    PERFORM loyalty.require_text('merchant_id', p_merchant_id);
    PERFORM loyalty.require_text('order_id', p_order_id);
    v_hold := loyalty.lock_hold(p_merchant_id, p_order_id);
    IF v_hold.status = 'captured' THEN
        IF (SELECT m.is_withdrawn FROM loyalty.source_mapping AS m ORDER BY m.mapping_id DESC LIMIT 1) THEN
            RAISE EXCEPTION 'The shop can''t be read now, so it is not known whether order % is paid', p_order_id
                USING ERRCODE = '55000', HINT = 'Call again when the operator has put the source mapping back.';
        END IF;
        SELECT o.status INTO v_status FROM loyalty_source.order_by_id(p_merchant_id, p_order_id) AS o;
        IF v_status IN ('paid', 'partially_refunded') THEN
            RAISE EXCEPTION 'Order % of merchant % is paid and has redeemed % points', p_order_id, p_merchant_id, v_hold.points
                USING ERRCODE = 'LP012', HINT = 'Cancel or refund the order: its points are then given back.';
        END IF;
    END IF;
    v_hold := loyalty.give_back_hold(p_merchant_id, p_order_id, 'released by the shop', 'checkout', NULL);
    RETURN (v_hold.order_id, v_hold.points, v_hold.status, v_hold.expires_at);
END
$function$;
COMMENT ON FUNCTION loyalty.release_points IS
'Gives back what an unpaid order has reserved or redeemed, once. LP004, LP009, LP012.';

CREATE FUNCTION loyalty.redeem_points(
    p_merchant_id text, p_customer_id text, p_order_id text, p_points bigint, p_order_total numeric DEFAULT NULL
) RETURNS loyalty.redemption_result
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    PERFORM loyalty.require_redemption(p_merchant_id, p_customer_id, p_order_id, p_points, p_order_total);
    RETURN loyalty.redeem(
        p_merchant_id, loyalty.lock_account(p_merchant_id, p_customer_id), p_order_id, p_points, p_order_total, 'checkout', NULL
    );
END
$function$;
COMMENT ON FUNCTION loyalty.redeem_points IS
'Takes exactly these points for an order, or nothing; captures them if the order has reserved them. LP002 to LP008.';

CREATE FUNCTION loyalty.update_customer_loyalty_points_atomic(
    p_customer_id text, p_points_earned bigint, p_points_redeemed bigint, p_order_id text,
    p_order_total numeric DEFAULT NULL, p_merchant_id text DEFAULT NULL
) RETURNS loyalty.update_result
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    PERFORM loyalty.require_update(p_customer_id, p_points_earned, p_points_redeemed, p_order_id, p_order_total);
    IF p_merchant_id <> '' THEN
        PERFORM loyalty.require_text('merchant_id', p_merchant_id);
    END IF;
    RETURN (
        loyalty.apply_update(
            coalesce(nullif(p_merchant_id, ''), loyalty.merchant_of(p_customer_id, p_order_id)), p_customer_id, p_points_earned,
            p_points_redeemed, p_order_id, p_order_total, 'checkout', NULL
        )
    ).result;
END
$function$;
COMMENT ON FUNCTION loyalty.update_customer_loyalty_points_atomic IS
'Redeems and earns the points of one order in one step, once per order. LP002 to LP008, LP011.';

CREATE FUNCTION loyalty.report_failed_update(
    p_customer_id text, p_points_earned bigint, p_points_redeemed bigint, p_order_id text,
    p_order_total numeric DEFAULT NULL, p_error text DEFAULT NULL, p_merchant_id text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    v_merchant_id text := nullif(p_merchant_id, '');
    v_queue_id bigint;
BEGIN
    PERFORM loyalty.require_update(p_customer_id, p_points_earned, p_points_redeemed, p_order_id, p_order_total);
    IF v_merchant_id IS NULL THEN
        BEGIN
            v_merchant_id := loyalty.merchant_of(p_customer_id, p_order_id);
        EXCEPTION WHEN OTHERS THEN
            -- Perhaps the order is not committed yet, perhaps the shop can't be read: the queue asks at every try.
            v_merchant_id := '';
        END;
    ELSE
        PERFORM loyalty.require_text('merchant_id', v_merchant_id);
    END IF;
    INSERT INTO loyalty.reconciliation_queue AS q (
        merchant_id, operation, order_id, customer_id, reason, detail, points_earned, points_redeemed, order_total,
        fingerprint, next_try_at
    )
    VALUES (
        v_merchant_id, 'update', p_order_id, p_customer_id, 'reported_by_shop', left(p_error, 1000), p_points_earned,
        p_points_redeemed, p_order_total,
        md5(concat_ws('|', p_customer_id, p_points_earned, p_points_redeemed, coalesce(p_order_total::text, ''))), now()
    )
    ON CONFLICT (merchant_id, order_id, operation, fingerprint) WHERE resolved_at IS NULL
    DO UPDATE SET detail = coalesce(excluded.detail, q.detail), attempts = q.attempts + 1, last_seen_at = now()
    RETURNING q.queue_id INTO v_queue_id;
    RETURN v_queue_id;
END
$function$;
COMMENT ON FUNCTION loyalty.report_failed_update IS
'Keeps a call of update_customer_loyalty_points_atomic that failed, to be tried again; returns its queue number. LP004.';

-- The queue -----------------------------------------------------------------------------------------------------

CREATE FUNCTION loyalty.try_queue_item(
    p_merchant_id text, p_queue_id bigint, p_actor text, p_run_id text, p_max_tries integer, p_first_wait interval,
    p_longest_wait interval
) RETURNS text
LANGUAGE plpgsql
AS $function$
DECLARE
    v_item loyalty.reconciliation_queue;
    v_merchant_id text;
    v_is_written boolean := true;
    v_is_due boolean;
    v_resolution text;
    v_error text;
    v_code text;
    v_is_parked boolean;
BEGIN
    -- Applies one item and resolves it in the same transaction; on failure sets the time of the next try, or parks it.
    -- Returns applied, found_done, void, failed, parked or gone. The caller has locked the item.
    SELECT * INTO v_item
    FROM loyalty.reconciliation_queue AS q
    WHERE q.merchant_id = p_merchant_id COLLATE "C" AND q.queue_id = p_queue_id AND q.resolved_at IS NULL;
    IF NOT FOUND OR v_item.operation NOT IN ('update', 'redeem') THEN
        RETURN 'gone';
    END IF;
    BEGIN
        v_merchant_id := coalesce(nullif(v_item.merchant_id, ''), loyalty.merchant_of(v_item.customer_id, v_item.order_id));
        IF v_item.operation = 'update' THEN
            v_is_written := (
                loyalty.apply_update(
                    v_merchant_id, v_item.customer_id, v_item.points_earned, v_item.points_redeemed, v_item.order_id,
                    v_item.order_total, p_actor, p_run_id
                )
            ).is_written;
        ELSE
            SELECT h.status <> 'captured' INTO v_is_written
            FROM loyalty.holds AS h
            WHERE h.merchant_id = v_merchant_id COLLATE "C" AND h.order_id = v_item.order_id;
            -- The shop may have corrected the order since. One that is gone from the shop still owes its points.
            v_is_due := EXISTS (
                SELECT FROM loyalty.redemptions_due(v_merchant_id, ARRAY[v_item.order_id]) AS d WHERE d.step = 'take'
            );
            IF v_is_written AND NOT v_is_due AND EXISTS (
                SELECT FROM loyalty_source.order_by_id(v_merchant_id, v_item.order_id)
            ) THEN
                RAISE EXCEPTION 'order % of merchant % does not owe these points any more', v_item.order_id, v_merchant_id
                    USING ERRCODE = 'LP008';
            END IF;
            PERFORM loyalty.capture_hold(v_merchant_id, v_item.order_id, v_is_due, p_actor, p_run_id);
        END IF;
        v_resolution := CASE WHEN v_is_written THEN 'applied' ELSE 'its effect was in the ledger already' END;
    EXCEPTION
        WHEN SQLSTATE 'LP008' THEN
            v_resolution := 'void: ' || SQLERRM;
            IF v_item.operation = 'update' AND v_item.points_redeemed > 0 THEN
                -- Should the order be paid again, it owes them.
                INSERT INTO loyalty.holds (
                    merchant_id, order_id, account_id, points, status, expires_at, settled_at
                )
                SELECT v_merchant_id, v_item.order_id, a.account_id, v_item.points_redeemed, 'released', now(), now()
                FROM loyalty.lock_account(v_merchant_id, v_item.customer_id) AS a
                WHERE a.account_id IS NOT NULL
                ON CONFLICT DO NOTHING;
            END IF;
        WHEN OTHERS THEN
            -- Lost connections, deadlocks, missing views, timeouts and full disks say nothing about the item.
            IF left(SQLSTATE, 2) IN ('08', '40', '42', '53', '55', '57', '58', 'XX') THEN
                RAISE;
            END IF;
            v_error := SQLERRM;
            v_code := SQLSTATE;
    END;
    IF v_error IS NULL THEN
        UPDATE loyalty.reconciliation_queue AS q
        SET merchant_id = v_merchant_id, resolved_at = now(), resolution = v_resolution, tries = q.tries + 1, run_id = p_run_id
        WHERE q.merchant_id = v_item.merchant_id AND q.queue_id = v_item.queue_id;
        RETURN CASE WHEN v_resolution LIKE 'void: %' THEN 'void' WHEN v_is_written THEN 'applied' ELSE 'found_done' END;
    END IF;
    -- What a paid order owes is taken from the next points that the customer earns, whenever that is.
    v_is_parked := v_item.tries + 1 >= p_max_tries AND NOT (v_item.operation = 'redeem' AND v_code = 'LP002');
    UPDATE loyalty.reconciliation_queue AS q
    SET
        reason = CASE v_code
            WHEN 'LP002' THEN 'insufficient_points'
            WHEN 'LP003' THEN 'other_numbers'
            WHEN 'LP005' THEN 'no_programme'
            WHEN 'LP006' THEN 'not_redeemable'
            WHEN 'LP007' THEN 'merchant_unknown'
            WHEN 'LP011' THEN 'order_of_other_customer'
            ELSE 'database_error'
        END,
        detail = left(v_error, 1000),
        tries = q.tries + 1,
        last_seen_at = now(),
        run_id = p_run_id,
        next_try_at = now() + loyalty.wait_before_try(q.tries + 1, p_first_wait, p_longest_wait),
        parked_at = CASE WHEN v_is_parked THEN now() END
    WHERE q.merchant_id = v_item.merchant_id AND q.queue_id = v_item.queue_id;
    RETURN CASE WHEN v_is_parked THEN 'parked' ELSE 'failed' END;
END
$function$;

CREATE FUNCTION loyalty.wait_before_try(tries integer, first_wait interval, longest_wait interval) RETURNS interval
LANGUAGE sql VOLATILE
AS $function$
    -- Doubles with every try, and up to a tenth more at random, so that items that failed together part.
    SELECT least(first_wait * power(2, least(greatest(tries, 1) - 1, 30)), longest_wait) * (1 + random() / 10)
$function$;

-- Awarding: what the redemptions and merges of orders change in it ------------------------------------------------

CREATE FUNCTION loyalty.is_redemption_due(
    p_merchant_id text, p_order_id text, p_hold_status text, p_hold_points bigint, p_order_status text,
    p_total_amount numeric, p_refunded_amount numeric, p_points_redeemed bigint, p_point_value_amount numeric
) RETURNS boolean
LANGUAGE sql STABLE
AS $function$
    -- Whether an award batch would give something back or take it; what could not be taken waits in the queue.
    SELECT CASE loyalty.redemption_step(
        p_hold_status, p_hold_points, p_order_status, p_total_amount, p_refunded_amount, p_points_redeemed,
        p_point_value_amount
    )
        WHEN 'give_back' THEN true
        WHEN 'take' THEN NOT EXISTS (
            SELECT FROM loyalty.reconciliation_queue AS q
            WHERE q.merchant_id = p_merchant_id COLLATE "C" AND q.order_id = p_order_id COLLATE "C"
                AND q.operation = 'redeem' AND q.resolved_at IS NULL
        )
        ELSE false
    END
$function$;

CREATE VIEW loyalty.award_problems AS
SELECT DISTINCT ON (q.merchant_id, q.order_id)
    q.merchant_id,
    q.order_id,
    CASE WHEN q.resolved_at IS NULL THEN q.reason END AS queued_reason,
    CASE WHEN q.resolved_at IS NOT NULL THEN q.reason END AS dismissed_reason,
    q.resolved_at AS dismissed_at
FROM loyalty.reconciliation_queue AS q
WHERE q.operation = 'award' AND (q.resolved_at IS NULL OR q.resolved_by IS NOT NULL)
ORDER BY q.merchant_id, q.order_id, q.resolved_at IS NOT NULL, q.resolved_at DESC;
COMMENT ON VIEW loyalty.award_problems IS
'Orders that can''t be decided: waiting in the queue, or let go by somebody until the shop changes them.';

CREATE OR REPLACE FUNCTION loyalty.order_differences(
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
        q.queued_reason,
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
    LEFT JOIN loyalty.merged_customers AS mc
        ON mc.merchant_id = p_merchant_id COLLATE "C" AND mc.customer_id = o.customer_id COLLATE "C"
    LEFT JOIN (
        SELECT
            op.*,
            a.customer_id
        FROM loyalty.order_points AS op
        JOIN loyalty.accounts AS a ON a.merchant_id = op.merchant_id AND a.account_id = op.account_id
        WHERE op.merchant_id = p_merchant_id COLLATE "C"
    ) AS op ON op.order_id = o.order_id COLLATE "C"
    LEFT JOIN loyalty.holds AS h
        ON h.merchant_id = p_merchant_id COLLATE "C" AND h.order_id = o.order_id COLLATE "C"
    LEFT JOIN loyalty.award_problems AS q
        ON q.merchant_id = p_merchant_id COLLATE "C" AND q.order_id = o.order_id COLLATE "C"
    CROSS JOIN LATERAL loyalty.order_verdict(
        o.order_id, o.status, o.customer_id, o.total_amount, refunds.amount, o.points_redeemed, o.currency, o.paid_at,
        m.currency, p
    ) AS v
    CROSS JOIN LATERAL (SELECT coalesce(mc.into_customer_id, o.customer_id COLLATE "C") AS customer_id) AS holder
    WHERE
        (p_paid_from IS NULL OR o.paid_at >= p_paid_from)
        AND (p_paid_to IS NULL OR o.paid_at < p_paid_to)
        AND (
            (
                loyalty.is_order_different(
                    v.outcome, v.target_points, v.target_stamps, holder.customer_id, op.customer_id,
                    op.target_points, op.stamps_in_force, q.queued_reason
                )
                -- Let go by somebody, and not changed since.
                AND NOT (
                    v.outcome = coalesce(q.dismissed_reason, '')
                    AND q.dismissed_at >= coalesce(greatest(o.updated_at, refunds.refunded_at), '-infinity')
                )
            )
            -- An order that moved: nothing is left on the former account, and nothing is on the new one yet.
            OR (
                v.outcome = 'earning' AND op.customer_id <> holder.customer_id
                AND loyalty.is_without_points(p_merchant_id, o.order_id, holder.customer_id)
            )
            -- Most have redeemed and are paid: the function is called for the others only, at 8 microseconds.
            OR (h.status <> 'captured' OR o.status IN ('cancelled', 'failed', 'refunded')) AND loyalty.is_redemption_due(
                p_merchant_id, o.order_id, h.status, h.points, o.status, o.total_amount, refunds.amount,
                o.points_redeemed, p.point_value_amount
            )
        )
$function$;

-- Rights --------------------------------------------------------------------------------------------------

GRANT SELECT, INSERT, UPDATE, DELETE ON loyalty.checkout_updates, loyalty.merged_customers TO loyalty_pipeline;
GRANT SELECT ON loyalty.customer_points, loyalty.customer_entries, loyalty.award_problems
TO loyalty_pipeline, loyalty_reader;
GRANT SELECT ON loyalty.checkout_updates, loyalty.merged_customers TO loyalty_reader;
GRANT SELECT ON loyalty.customer_points, loyalty.customer_entries TO loyalty_app;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA loyalty FROM public;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA loyalty TO loyalty_pipeline;
GRANT EXECUTE ON FUNCTION
loyalty.calculate_points_to_earn, loyalty.spendable_points, loyalty.redeemable_points, loyalty.reserve_points,
loyalty.capture_points, loyalty.release_points, loyalty.redeem_points, loyalty.update_customer_loyalty_points_atomic,
loyalty.report_failed_update
TO loyalty_app;
GRANT EXECUTE ON FUNCTION
loyalty.spendable, loyalty.points_to_redeem, loyalty.is_order_undone, loyalty.redemption_step, loyalty.customer_in_ledger,
loyalty.calculate_points_to_earn, loyalty.spendable_points, loyalty.redeemable_points
TO loyalty_reader;
-- The view's function runs with the rights of who reads the view.
GRANT EXECUTE ON FUNCTION loyalty.spendable TO loyalty_app;

RESET ROLE;

-- The checkout functions run as loyalty_owner, and read the shop through the views of "loyalty sources apply". Those of
-- a mapping that is in force already:
DO $rights$
BEGIN
    IF EXISTS (SELECT FROM pg_namespace WHERE nspname = 'loyalty_source') THEN
        GRANT USAGE ON SCHEMA loyalty_source TO loyalty_owner;
        GRANT SELECT ON ALL TABLES IN SCHEMA loyalty_source TO loyalty_owner;
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA loyalty_source TO loyalty_owner;
    END IF;
END
$rights$;
