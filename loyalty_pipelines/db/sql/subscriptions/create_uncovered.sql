-- Subscriptions whose paid periods are not simply those that they run: nothing that covers now by one chain of payments,
-- or paid for longer. Each with the period that it is in: its current one; if that is over, the time since, which nobody
-- has renewed. middle_at: its middle; a payment that was captured some days early or late covers it. Gone at the end of
-- the transaction.
CREATE TEMPORARY TABLE uncovered_subscriptions ON COMMIT DROP AS
-- Most are paid for what they run, a day more or less: those are not worked out. Hours, because days depend on the
-- time zone, and cost ten times as much.
WITH candidates AS MATERIALIZED (
    SELECT
        s.*,
        c.start_at AS paid_since,
        c.end_at AS paid_until,
        c.reaches_at,
        c.captured_at,
        c.is_given,
        c.is_chain
    FROM checked_subscriptions AS s
    LEFT JOIN paid_chains AS c ON c.subscription_key = s.subscription_key
    WHERE
        (
            s.status IN ('active', 'past_due')
            AND NOT coalesce(
                c.is_chain
                AND s.end_at > CAST(:as_of AS timestamptz)
                AND c.start_at <= s.start_at + interval '24 hours'
                AND c.end_at >= s.end_at - interval '24 hours'
                AND s.end_at > s.start_at + interval '48 hours',
                false
            )
        )
        OR (
            (s.status IN ('active', 'past_due') OR (s.status = 'expired' AND s.cancelled_at IS NULL))
            AND c.reaches_at > greatest(s.end_at, CAST(:as_of AS timestamptz))
        )
)

SELECT
    s.*,
    pl.amount AS plan_amount,
    pl.currency AS plan_currency,
    coalesce(pl.lasts, interval '1 month') AS lasts,
    period.start_at AS period_start_at,
    period.end_at AS period_end_at,
    period.middle_at,
    s.status IN ('active', 'past_due')
    AND NOT coalesce(s.is_chain AND s.paid_since < period.end_at AND s.paid_until > period.middle_at, false) AS is_uncovered
FROM candidates AS s
LEFT JOIN checked_plans AS pl ON pl.merchant_id = s.merchant_id AND pl.plan_id = s.plan_id
CROSS JOIN LATERAL (
    SELECT coalesce(s.end_at, s.start_at + coalesce(pl.lasts, interval '100 years')) AS end_at
) AS runs
CROSS JOIN LATERAL (
    SELECT
        CASE WHEN runs.end_at <= CAST(:as_of AS timestamptz) THEN runs.end_at ELSE s.start_at END AS start_at,
        greatest(runs.end_at, CAST(:as_of AS timestamptz)) AS end_at,
        CASE
            WHEN runs.end_at > CAST(:as_of AS timestamptz) AND isfinite(s.start_at) AND isfinite(runs.end_at)
                THEN s.start_at + (runs.end_at - s.start_at) / 2
            ELSE CAST(:as_of AS timestamptz)
        END AS middle_at
) AS period;
