-- Mails: delivery of the outbox, overrides of templates, enrolment, welcome bonus, rewards.
SET LOCAL ROLE loyalty_owner;
-- Functions below read views that "loyalty sources apply" makes later.
SET LOCAL check_function_bodies = off;

-- Rules ---------------------------------------------------------------------------------------------------

ALTER TABLE loyalty.programs
ADD COLUMN warning_days integer NOT NULL DEFAULT 14,
ADD COLUMN welcome_bonus_points bigint NOT NULL DEFAULT 0,
ADD CONSTRAINT programs_warning_in_range CHECK (warning_days BETWEEN 1 AND 365),
ADD CONSTRAINT programs_welcome_bonus_in_range CHECK (welcome_bonus_points BETWEEN 0 AND 2000000000);

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
    redemption_max_percent,
    warning_days,
    welcome_bonus_points
FROM loyalty.programs;

ALTER TYPE loyalty.terms ADD ATTRIBUTE warning_days integer;
ALTER TYPE loyalty.terms ADD ATTRIBUTE stamp_target integer;

CREATE OR REPLACE FUNCTION loyalty.merchant_terms(p_merchant_id text) RETURNS SETOF loyalty.terms
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
        ),
        p.warning_days,
        p.stamp_target
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

-- A welcome bonus is earned with no order. NOT VALID first: the rows that are there satisfied a narrower rule.
ALTER TABLE loyalty.ledger_entries
DROP CONSTRAINT ledger_entries_kind_is_known,
ADD CONSTRAINT ledger_entries_kind_is_known CHECK (
    kind IN ('earned', 'reversed', 're-earned', 'redeemed', 'restored', 'expired', 'adjusted', 'opening', 'bonus')
) NOT VALID;

-- Outbox --------------------------------------------------------------------------------------------------

ALTER TABLE loyalty.notifications RENAME COLUMN sent_at TO settled_at;
ALTER TABLE loyalty.notifications
ADD COLUMN leased_until timestamptz,
ADD COLUMN last_error text,
ADD COLUMN sent_as text,
-- Not created_at, of which the Message-ID is made: a mail that is retried or due again waits from then on.
ADD COLUMN waits_since timestamptz NOT NULL DEFAULT now(),
DROP CONSTRAINT notifications_status_is_known,
ADD CONSTRAINT notifications_status_is_known CHECK (status IN ('pending', 'sent', 'failed', 'parked', 'void')),
ADD CONSTRAINT notifications_template_is_known CHECK (
    template IN (
        'loyalty_enrollment', 'loyalty_welcome_bonus', 'loyalty_points_expiring', 'loyalty_points_expired',
        'loyalty_reward_ready'
    )
),
ADD CONSTRAINT notifications_settled_or_pending CHECK ((status = 'pending') = (settled_at IS NULL));
COMMENT ON COLUMN loyalty.notifications.status IS
'pending: to be sent at next_attempt_at. sent. failed: given up, can be tried
again. parked: the customer can''t be reached by mail. void: not true any more when its turn came.';
COMMENT ON COLUMN loyalty.notifications.leased_until IS
'A sender is at work on it until then; next_attempt_at is not earlier, so that a crash gives it back.';
COMMENT ON COLUMN loyalty.notifications.last_error IS 'Why the last try failed, without any address.';
COMMENT ON COLUMN loyalty.notifications.sent_as IS 'Language and origin of the template that was sent.';

CREATE INDEX notifications_due
ON loyalty.notifications (merchant_id, next_attempt_at, notification_id) WHERE status = 'pending';
-- A warning that has not arrived keeps its points from expiring.
CREATE INDEX notifications_open_warnings
ON loyalty.notifications (merchant_id, customer_id)
WHERE template = 'loyalty_points_expiring' AND status IN ('pending', 'failed');
CREATE INDEX notifications_not_delivered
ON loyalty.notifications (merchant_id, notification_id) WHERE status IN ('failed', 'parked');
CREATE INDEX notifications_settled ON loyalty.notifications (settled_at) WHERE settled_at IS NOT NULL;

CREATE TABLE loyalty.mail_templates (
    -- '' is the platform: a template for all merchants.
    merchant_id text COLLATE "C" NOT NULL,
    -- '' is the merchant: a template for all its stores.
    store_id text COLLATE "C" NOT NULL DEFAULT '',
    template text COLLATE "C" NOT NULL,
    locale text COLLATE "C" NOT NULL,
    subject text NOT NULL,
    text_body text NOT NULL,
    html_body text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by text NOT NULL,
    PRIMARY KEY (merchant_id, store_id, template, locale),
    CONSTRAINT mail_templates_store_has_a_merchant CHECK (merchant_id <> '' OR store_id = '')
);
COMMENT ON TABLE loyalty.mail_templates IS
'Overrides of the built-in mail templates: a store''s beats the merchant''s, which beats the platform''s.';

-- Enrolment, welcome bonus, rewards ------------------------------------------------------------------------

CREATE FUNCTION loyalty.is_news(happened_at timestamptz, as_of timestamptz) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
AS $function$
    -- Mails of enrolment and rewards tell what has just happened: the first look at years of orders writes to nobody.
    SELECT happened_at >= as_of - interval '7 days'
$function$;

CREATE FUNCTION loyalty.enroll_accounts(
    p_merchant_id text, p_account_ids bigint[], p_at timestamptz[], p_actor text, p_run_id text
) RETURNS TABLE (points_in_entries bigint, points_in_balances bigint)
LANGUAGE sql VOLATILE
-- Accounts are looked up by key. A first run makes them faster than they are analyzed: other joins, or a plan that was
-- kept from when there were few, would read all that the merchant has for every batch.
SET plan_cache_mode = force_custom_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $function$
    -- Enrols accounts that the running transaction has made, each at an instant: when its first order was paid, or now.
    -- The version of the programme in force then says what the welcome bonus is. Once per account: the ledger's unique
    -- key has one bonus per customer, the outbox one mail per account and cause.
    WITH newcomers AS MATERIALIZED (
        SELECT
            a.account_id,
            a.customer_id,
            a.balance,
            a.next_seq,
            w.at,
            p.welcome_bonus_points AS points
        FROM unnest(p_account_ids, p_at) AS w (account_id, at)
        JOIN loyalty.accounts AS a ON a.merchant_id = p_merchant_id COLLATE "C" AND a.account_id = w.account_id
        LEFT JOIN loyalty.program_periods AS p
            ON p.merchant_id = p_merchant_id COLLATE "C"
            AND p.is_active
            AND w.at >= p.valid_from
            AND (w.at < p.valid_until OR p.valid_until IS NULL)
    ),
    bonus AS (
        INSERT INTO loyalty.ledger_entries (
            merchant_id, account_id, seq, kind, points, balance_before, balance_after, reference_type, reference_id,
            reference_seq, actor, run_id, occurred_at
        )
        SELECT
            p_merchant_id, n.account_id, n.next_seq, 'bonus', n.points, n.balance, n.balance + n.points, 'welcome_bonus',
            n.customer_id, 1, p_actor, p_run_id, n.at
        FROM newcomers AS n
        WHERE n.points > 0
        ORDER BY n.account_id
        ON CONFLICT (merchant_id, reference_type, reference_id, reference_seq) DO NOTHING
        RETURNING account_id, reference_id AS customer_id, points, occurred_at AS at
    ),
    terms AS MATERIALIZED (
        SELECT
            t.points_expiration_days,
            CASE WHEN t.is_timezone_usable THEN t.timezone ELSE 'UTC' END AS timezone
        FROM loyalty.merchant_terms(p_merchant_id) AS t
    ),
    moved AS (
        UPDATE loyalty.accounts AS a
        SET
            balance = a.balance + b.points,
            next_seq = a.next_seq + 1,
            last_activity_at = b.at,
            expires_at = loyalty.expiry_instant(b.at, t.points_expiration_days, t.timezone)
        FROM bonus AS b
        CROSS JOIN terms AS t
        WHERE a.merchant_id = p_merchant_id COLLATE "C" AND a.account_id = b.account_id
        RETURNING b.points
    ),
    mails AS (
        INSERT INTO loyalty.notifications (merchant_id, dedupe_key, template, customer_id, payload)
        SELECT p_merchant_id, m.cause || '/' || m.account_id, 'loyalty_' || m.cause, m.customer_id, m.payload
        FROM (
            SELECT n.account_id, n.customer_id, n.at, 'enrollment' AS cause, jsonb_build_object() AS payload
            FROM newcomers AS n
            UNION ALL
            SELECT b.account_id, b.customer_id, b.at, 'welcome_bonus', jsonb_build_object('points', b.points)
            FROM bonus AS b
        ) AS m
        WHERE loyalty.is_news(m.at, now())
        ORDER BY m.account_id, m.cause
        ON CONFLICT (merchant_id, dedupe_key) DO NOTHING
    )
    SELECT
        (SELECT coalesce(sum(b.points), 0)::bigint FROM bonus AS b),
        (SELECT coalesce(sum(m.points), 0)::bigint FROM moved AS m)
$function$;
COMMENT ON FUNCTION loyalty.enroll_accounts IS
'The enrolment mail and the welcome bonus of new accounts: what award batches and checkout functions do, in one place.';

CREATE FUNCTION loyalty.open_account(
    p_merchant_id text, p_customer_id text, p_actor text, p_run_id text,
    OUT account loyalty.accounts, OUT is_new boolean
)
LANGUAGE plpgsql
AS $function$
DECLARE
    v_account_id bigint;
BEGIN
    -- The account of a customer who had none a moment ago, locked: made and enrolled. Of two at once the second waits
    -- here for the first, and finds its account.
    INSERT INTO loyalty.accounts (merchant_id, customer_id)
    VALUES (p_merchant_id, p_customer_id)
    ON CONFLICT (merchant_id, customer_id) DO NOTHING
    RETURNING account_id INTO v_account_id;
    is_new := FOUND;
    IF is_new THEN
        PERFORM loyalty.enroll_accounts(p_merchant_id, ARRAY[v_account_id], ARRAY[now()], p_actor, p_run_id);
    END IF;
    account := loyalty.lock_account(p_merchant_id, p_customer_id);
END
$function$;

CREATE FUNCTION loyalty.is_card_full(stamps bigint, stamps_added bigint, stamp_target integer) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    -- Whether the stamps that were added, the last of all there are, reach a multiple of the target or step over one.
    SELECT stamps_added > stamps % stamp_target
$function$;

CREATE FUNCTION loyalty.announce_rewards(
    p_merchant_id text, p_stamp_target integer, p_account_ids bigint[], p_stamps integer[], p_at timestamptz[]
) RETURNS bigint
LANGUAGE sql VOLATILE
SET plan_cache_mode = force_custom_plan
AS $function$
    -- A card is full when an account's stamps reach a multiple of the target. The arrays are what the running
    -- transaction has added to (or taken from) stamp_count, and when each order was paid. One mail per account and
    -- round, of the highest round where several became full; none where an old order filled the card. Returns how many.
    WITH changes AS MATERIALIZED (
        SELECT c.account_id, c.stamps, c.at FROM unnest(p_account_ids, p_stamps, p_at) AS c (account_id, stamps, at)
    ),
    reached AS (
        SELECT
            a.account_id,
            a.customer_id,
            a.stamp_count / p_stamp_target AS round,
            a.stamp_count % p_stamp_target AS surplus
        FROM (SELECT c.account_id, sum(c.stamps) AS stamps FROM changes AS c GROUP BY c.account_id) AS t
        -- By key, whatever the planner knows of the table.
        CROSS JOIN LATERAL (
            SELECT *
            FROM loyalty.accounts AS one
            WHERE one.merchant_id = p_merchant_id COLLATE "C" AND one.account_id = t.account_id
            OFFSET 0
        ) AS a
        WHERE loyalty.is_card_full(a.stamp_count, t.stamps, p_stamp_target)
    ),
    credits AS (
        SELECT
            r.account_id,
            r.customer_id,
            r.round,
            r.surplus,
            c.at,
            sum(c.stamps) OVER (PARTITION BY c.account_id ORDER BY c.at DESC) AS stamps_since
        FROM reached AS r
        JOIN changes AS c ON c.account_id = r.account_id
        WHERE c.stamps > 0
    ),
    mails AS (
        INSERT INTO loyalty.notifications (merchant_id, dedupe_key, template, customer_id, payload)
        SELECT
            p_merchant_id, concat_ws('/', 'reward', c.account_id, p_stamp_target, c.round), 'loyalty_reward_ready',
            c.customer_id, jsonb_build_object('stamps', p_stamp_target)
        FROM credits AS c
        -- Without the stamps of this order and those after it the card would not be full: the latest such order did it.
        WHERE c.stamps_since > c.surplus
        GROUP BY c.account_id, c.customer_id, c.round
        HAVING loyalty.is_news(max(c.at), now())
        ORDER BY c.account_id
        ON CONFLICT (merchant_id, dedupe_key) DO NOTHING
        RETURNING 1
    )
    SELECT count(*) FROM mails
$function$;

CREATE OR REPLACE FUNCTION loyalty.apply_update(
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
        v_account := (loyalty.open_account(p_merchant_id, p_customer_id, p_actor, p_run_id)).account;
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
CREATE OR REPLACE FUNCTION loyalty.earn_at_checkout(
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
    -- Asked first, because the function is planned anew by every call.
    IF v_stamps > 0 AND loyalty.is_card_full(
        (
            SELECT a.stamp_count
            FROM loyalty.accounts AS a
            WHERE a.merchant_id = p_merchant_id COLLATE "C" AND a.account_id = p_account_id
        ),
        v_stamps,
        terms.stamp_target
    ) THEN
        PERFORM loyalty.announce_rewards(
            p_merchant_id, terms.stamp_target, ARRAY[p_account_id], ARRAY[v_stamps], ARRAY[now()]
        );
    END IF;
END
$function$;
CREATE TYPE loyalty.enrollment_result AS (
    customer_id text, is_new boolean, welcome_bonus_points bigint, balance bigint
);

CREATE FUNCTION loyalty.enroll_customer(p_merchant_id text, p_customer_id text) RETURNS loyalty.enrollment_result
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    v_customer_id text;
    v_balance bigint;
    v_is_new boolean := false;
    v_opened record;
BEGIN
    PERFORM loyalty.require_text('merchant_id', p_merchant_id);
    PERFORM loyalty.require_text('customer_id', p_customer_id);
    -- Who has an account is answered without a lock: pages call this for customers who are at a checkout, too.
    v_customer_id := loyalty.customer_in_ledger(p_merchant_id, p_customer_id);
    SELECT a.balance INTO v_balance
    FROM loyalty.accounts AS a
    WHERE a.merchant_id = p_merchant_id COLLATE "C" AND a.customer_id = v_customer_id COLLATE "C";
    IF NOT FOUND THEN
        PERFORM loyalty.require_program(
            p_merchant_id, (SELECT t FROM loyalty.merchant_terms(p_merchant_id) AS t)
        );
        SELECT o.account, o.is_new INTO v_opened
        FROM loyalty.open_account(p_merchant_id, p_customer_id, 'checkout', NULL) AS o;
        v_customer_id := (v_opened.account).customer_id;
        v_balance := (v_opened.account).balance;
        v_is_new := v_opened.is_new;
    END IF;
    RETURN (
        p_customer_id,
        v_is_new,
        coalesce(
            (
                SELECT e.points
                FROM loyalty.ledger_entries AS e
                WHERE e.merchant_id = p_merchant_id COLLATE "C" AND e.reference_type = 'welcome_bonus'
                    AND e.reference_id = v_customer_id COLLATE "C" AND e.reference_seq = 1
            ),
            0
        ),
        v_balance
    );
END
$function$;
COMMENT ON FUNCTION loyalty.enroll_customer IS
'Makes the customer''s account, with its welcome bonus and mails; whoever has an account gets nothing. LP004, LP005.';

-- Rights --------------------------------------------------------------------------------------------------

GRANT SELECT, INSERT, UPDATE, DELETE ON loyalty.mail_templates TO loyalty_pipeline;
GRANT SELECT ON loyalty.mail_templates TO loyalty_reader;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA loyalty FROM public;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA loyalty TO loyalty_pipeline;
GRANT EXECUTE ON FUNCTION loyalty.enroll_customer TO loyalty_app;

RESET ROLE;
