-- Subscriptions: what the shop changed and is to be compared, settings per merchant, and fix plans.
SET LOCAL ROLE loyalty_owner;

-- Findings ------------------------------------------------------------------------------------------------

ALTER TABLE loyalty.findings ADD COLUMN policy text COLLATE "C";
ALTER TABLE loyalty.findings ADD CONSTRAINT findings_policy_is_known CHECK (policy IN ('A', 'P', 'H'));
COMMENT ON COLUMN loyalty.findings.policy IS
'Who may put it right: A automatically, P by a plan that a person approves, H a person only. NULL: the proof says how.';
-- What happened to an object before: its closed findings are its history.
CREATE INDEX findings_by_object ON loyalty.findings (merchant_id, subject, object_type, object_id);

-- What to look at -----------------------------------------------------------------------------------------

CREATE TABLE loyalty.subscription_inbox (
    relation text COLLATE "C" NOT NULL,
    merchant_id text COLLATE "C" NOT NULL,
    object_id text COLLATE "C" NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT subscription_inbox_relation_is_known CHECK (
        relation IN ('orders', 'payments', 'subscriptions', 'customers')
    )
);
COMMENT ON TABLE loyalty.subscription_inbox IS
'Orders, payments and subscriptions that the shop changed since they were compared, and whose they no longer are. Triggers
write it, a check empties it.';

CREATE TABLE loyalty.subscription_looks (
    merchant_id text COLLATE "C" NOT NULL,
    relation text COLLATE "C" NOT NULL,
    object_id text COLLATE "C" NOT NULL,
    due_at timestamptz NOT NULL,
    PRIMARY KEY (merchant_id, relation, object_id)
);
CREATE INDEX subscription_looks_due ON loyalty.subscription_looks (due_at);
COMMENT ON TABLE loyalty.subscription_looks IS
'What would be a finding if it were older than its grace period: it is looked at again then, though nobody changes it.';

CREATE TABLE loyalty.subscription_settings (
    merchant_id text COLLATE "C" PRIMARY KEY,
    is_report_only boolean NOT NULL DEFAULT false,
    max_fixes integer NOT NULL DEFAULT 100,
    max_money numeric NOT NULL DEFAULT 1000,
    tolerance_percent numeric NOT NULL DEFAULT 1,
    grace_minutes integer NOT NULL DEFAULT 0,
    changed_by text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT subscription_settings_max_fixes_is_possible CHECK (max_fixes BETWEEN 0 AND 100000),
    -- NaN and Infinity are larger than any number.
    CONSTRAINT subscription_settings_max_money_is_possible CHECK (max_money BETWEEN 0 AND 1000000000),
    CONSTRAINT subscription_settings_tolerance_is_possible CHECK (tolerance_percent BETWEEN 0 AND 50),
    CONSTRAINT subscription_settings_grace_is_possible CHECK (grace_minutes BETWEEN 0 AND 43200)
);
COMMENT ON TABLE loyalty.subscription_settings IS
'How a merchant''s payments and subscriptions are compared and put right. No row: the defaults of the columns.';
COMMENT ON COLUMN loyalty.subscription_settings.max_money IS
'Money that the fixes of one run may move, in the merchant''s currency.';
COMMENT ON COLUMN loyalty.subscription_settings.grace_minutes IS
'No class reports a row that is younger, however short its own grace period: for shops whose webhooks are slow.';

-- Fixes ---------------------------------------------------------------------------------------------------

CREATE TABLE loyalty.fix_plans (
    merchant_id text COLLATE "C" NOT NULL,
    plan_id bigint GENERATED ALWAYS AS IDENTITY,
    fix_key text COLLATE "C" NOT NULL,
    finding_id bigint NOT NULL,
    class text COLLATE "C" NOT NULL,
    object_type text COLLATE "C" NOT NULL,
    object_id text COLLATE "C" NOT NULL,
    policy text COLLATE "C" NOT NULL,
    action text COLLATE "C" NOT NULL,
    target_id text COLLATE "C",
    before jsonb NOT NULL,
    after jsonb NOT NULL,
    inverse jsonb,
    evidence jsonb NOT NULL,
    amount numeric NOT NULL DEFAULT 0,
    currency text COLLATE "C",
    explanation text NOT NULL,
    status text COLLATE "C" NOT NULL DEFAULT 'planned',
    planned_by text NOT NULL,
    planned_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    approved_by text,
    approved_at timestamptz,
    applied_by text,
    applied_at timestamptz,
    undone_by text,
    undone_at timestamptz,
    function text COLLATE "C",
    row_before jsonb,
    row_after jsonb,
    failure text,
    failures integer NOT NULL DEFAULT 0,
    run_id text,
    PRIMARY KEY (merchant_id, plan_id),
    CONSTRAINT fix_plans_policy_is_known CHECK (policy IN ('A', 'P')),
    CONSTRAINT fix_plans_action_is_known CHECK (
        action IN ('create_subscription', 'update_subscription', 'refund_payment', 'ask_payment', 'award_order')
    ),
    CONSTRAINT fix_plans_status_is_known CHECK (
        status IN ('planned', 'approved', 'applied', 'undone', 'stale', 'failed', 'expired')
    )
);
-- One fix for one thing: two planners at once make one plan, and what is applied is never planned a second time.
CREATE UNIQUE INDEX fix_plans_once
ON loyalty.fix_plans (merchant_id, fix_key) WHERE status IN ('planned', 'approved', 'applied', 'failed');
CREATE INDEX fix_plans_by_number ON loyalty.fix_plans (plan_id);
CREATE INDEX fix_plans_by_finding ON loyalty.fix_plans (finding_id);
CREATE INDEX fix_plans_by_object ON loyalty.fix_plans (merchant_id, object_type, object_id);
CREATE INDEX fix_plans_by_target ON loyalty.fix_plans (merchant_id, target_id) WHERE target_id IS NOT NULL;
CREATE INDEX fix_plans_waiting ON loyalty.fix_plans (merchant_id, plan_id) WHERE status IN ('planned', 'approved');
COMMENT ON TABLE loyalty.fix_plans IS
'What would put a finding right: planned, approved by a person or automatic, applied, undone. Never deleted.';
COMMENT ON COLUMN loyalty.fix_plans.fix_key IS
'Names the finding and what is done about it. A shop''s function gets it, too, so that it can do it once.';
COMMENT ON COLUMN loyalty.fix_plans.target_id IS
'The subscription, payment or order that is changed; of a new one, once it is there.';
COMMENT ON COLUMN loyalty.fix_plans.before IS
'The columns that the fix changes, as they are, in the words of loyalty_source.';
COMMENT ON COLUMN loyalty.fix_plans.after IS 'The same columns as the fix sets them.';
COMMENT ON COLUMN loyalty.fix_plans.inverse IS 'What undoing it does. NULL: it can''t be undone.';
COMMENT ON COLUMN loyalty.fix_plans.function IS
'The shop''s function that did it, and undoes it. NULL: written through the view.';
COMMENT ON COLUMN loyalty.fix_plans.row_before IS
'The shop''s row before the fix, column by column as the shop has it; undoing puts it back.';
COMMENT ON COLUMN loyalty.fix_plans.row_after IS 'The shop''s row after the fix: undoing it asks whether it is still that.';

-- Daily mails --------------------------------------------------------------------------------------------

CREATE TABLE loyalty.subscription_mails (
    sent_on date PRIMARY KEY,
    leased_until timestamptz,
    sent_at timestamptz,
    run_id text,
    failure text
);
COMMENT ON TABLE loyalty.subscription_mails IS
'The daily summary: sent once for a day of the platform''s time zone, however often its report runs.';

-- Rules as functions --------------------------------------------------------------------------------------

CREATE FUNCTION loyalty.plan_interval(words text) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    -- How long one payment for a plan lasts. NULL: for ever, or nobody knows. One expression, so that it is inlined.
    SELECT CASE lower(btrim(words))
        WHEN 'month' THEN interval '1 month'
        WHEN 'monthly' THEN interval '1 month'
        WHEN 'year' THEN interval '1 year'
        WHEN 'yearly' THEN interval '1 year'
        WHEN 'annual' THEN interval '1 year'
        WHEN 'annually' THEN interval '1 year'
        WHEN 'week' THEN interval '7 days'
        WHEN 'weekly' THEN interval '7 days'
        WHEN 'day' THEN interval '1 day'
        WHEN 'daily' THEN interval '1 day'
        WHEN 'fortnight' THEN interval '14 days'
        WHEN 'fortnightly' THEN interval '14 days'
        WHEN 'biweekly' THEN interval '14 days'
        WHEN 'quarter' THEN interval '3 months'
        WHEN 'quarterly' THEN interval '3 months'
        WHEN 'half_year' THEN interval '6 months'
        WHEN 'half-year' THEN interval '6 months'
        WHEN 'semiannual' THEN interval '6 months'
        -- A number of them, as words or ISO 8601. A cast to interval would depend on settings, and not be inlined.
        ELSE CASE
            WHEN lower(btrim(words)) ~ '^p?[1-9][0-9]?[0-9]? *(d|w|m|y|days?|weeks?|months?|years?)$' THEN
                CAST(substring(words, '[0-9]+') AS integer) * CASE substring(lower(words), '[dwmy]')
                    WHEN 'd' THEN interval '1 day'
                    WHEN 'w' THEN interval '7 days'
                    WHEN 'm' THEN interval '1 month'
                    ELSE interval '1 year'
                END
        END
    END
$function$;
COMMENT ON FUNCTION loyalty.plan_interval IS
'How long a payment for a plan lasts, from words such as month, yearly, 3 months or P1M. NULL: for ever, or not known.';

CREATE FUNCTION loyalty.plan_price(
    plan_amount numeric, discount_amount numeric, points_discount_amount numeric, points_redeemed bigint,
    point_value_amount numeric
) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    -- What a payment for a plan has to be: its price less the order's discount and the points redeemed on it. NULL: not known.
    -- CASE, because greatest() takes no notice of NULL: what is for no plan would have to cost 0.
    SELECT CASE
        WHEN plan_amount IS NOT NULL THEN greatest(
            plan_amount - coalesce(discount_amount, 0)
            - coalesce(points_discount_amount, coalesce(points_redeemed, 0) * coalesce(point_value_amount, 0)),
            0
        )
    END
$function$;

-- Rights --------------------------------------------------------------------------------------------------

GRANT SELECT, INSERT, UPDATE, DELETE
ON loyalty.subscription_inbox, loyalty.subscription_looks, loyalty.subscription_settings, loyalty.fix_plans,
loyalty.subscription_mails
TO loyalty_pipeline;
GRANT SELECT ON loyalty.subscription_settings, loyalty.fix_plans TO loyalty_reader;
-- The triggers on the shop's tables may do this and nothing else.
GRANT INSERT ON loyalty.subscription_inbox TO loyalty_capture;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA loyalty FROM public;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA loyalty TO loyalty_pipeline;

RESET ROLE;
