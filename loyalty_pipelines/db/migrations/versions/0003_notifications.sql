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

-- Rights --------------------------------------------------------------------------------------------------

GRANT SELECT, INSERT, UPDATE, DELETE ON loyalty.mail_templates TO loyalty_pipeline;
GRANT SELECT ON loyalty.mail_templates TO loyalty_reader;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA loyalty FROM public;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA loyalty TO loyalty_pipeline;

RESET ROLE;
