-- Metrics: the views behind 'loyalty metrics', one row per merchant unless said otherwise. None of them reads the ledger.
SET LOCAL ROLE loyalty_owner;
-- The function below reads a view that "loyalty sources apply" makes later.
SET LOCAL check_function_bodies = off;

-- How long awards take ------------------------------------------------------------------------------------

ALTER TABLE loyalty.award_batches
ADD COLUMN award_seconds double precision,
ADD COLUMN oldest_enqueued_at timestamptz;
COMMENT ON COLUMN loyalty.award_batches.award_seconds IS
'How long the batch''s transaction has taken, with its wait for the merchant''s lock. NULL before revision 0007.';
COMMENT ON COLUMN loyalty.award_batches.oldest_enqueued_at IS
'Since when the order that waited longest was in the inbox. NULL before revision 0007.';

-- What was settled lately, among all that ever was.
CREATE INDEX reconciliation_queue_settled ON loyalty.reconciliation_queue (resolved_at) WHERE resolved_at IS NOT NULL;

-- Given up, among millions that are parked because nobody can be reached.
CREATE INDEX notifications_failed ON loyalty.notifications (merchant_id, waits_since) WHERE status = 'failed';

CREATE VIEW loyalty.recent_queue_items AS
-- Two parts, an index for each.
SELECT
    o.merchant_id,
    o.operation,
    o.attempts,
    o.tries,
    o.created_at,
    o.last_seen_at,
    o.resolved_at,
    o.resolved_by
FROM loyalty.reconciliation_queue AS o
WHERE o.resolved_at IS NULL
UNION ALL
SELECT
    s.merchant_id,
    s.operation,
    s.attempts,
    s.tries,
    s.created_at,
    s.last_seen_at,
    s.resolved_at,
    s.resolved_by
FROM loyalty.reconciliation_queue AS s
WHERE s.resolved_at > now() - interval '1 hour';
COMMENT ON VIEW loyalty.recent_queue_items IS
'Items of the reconciliation queue that are open, or were settled within the last hour.';

CREATE VIEW loyalty.metrics_awards AS
SELECT
    timed.merchant_id,
    count(*) AS batches,
    sum(timed.orders_changed) AS orders_changed,
    sum(timed.orders_unchanged) AS orders_unchanged,
    -- Not what the batches say: they count an order again with each try, and the queue tries it by itself.
    coalesce(max(queued.orders), 0) AS orders_queued,
    -- Those that were gone are a part of those that were skipped.
    sum(timed.orders_skipped - timed.orders_missing) AS orders_skipped,
    sum(timed.orders_missing) AS orders_missing,
    percentile_disc(0.5) WITHIN GROUP (ORDER BY timed.award_seconds) AS median_award_seconds,
    percentile_disc(0.95) WITHIN GROUP (ORDER BY timed.award_seconds) AS p95_award_seconds,
    max(timed.award_seconds) AS longest_award_seconds,
    percentile_disc(0.5) WITHIN GROUP (ORDER BY timed.wait_seconds) AS median_wait_seconds,
    percentile_disc(0.95) WITHIN GROUP (ORDER BY timed.wait_seconds) AS p95_wait_seconds,
    max(timed.wait_seconds) AS longest_wait_seconds
FROM (
    SELECT
        b.*,
        extract(EPOCH FROM b.recorded_at - b.oldest_enqueued_at) + b.award_seconds AS wait_seconds
    FROM loyalty.award_batches AS b
    -- award_batches_by_time. An hour, so that a scrape costs the same however long the history is.
    WHERE b.recorded_at > now() - interval '1 hour'
) AS timed
LEFT JOIN (
    SELECT
        q.merchant_id,
        count(*) AS orders
    FROM loyalty.recent_queue_items AS q
    WHERE q.operation = 'award' AND q.created_at > now() - interval '1 hour'
    GROUP BY q.merchant_id
) AS queued ON timed.merchant_id = queued.merchant_id
GROUP BY timed.merchant_id;
COMMENT ON VIEW loyalty.metrics_awards IS
'What the award batches of the last hour did and how long they took. An order that is looked at twice counts twice, but one
without a decision is queued once.';

CREATE VIEW loyalty.metrics_point_updates AS
SELECT
    u.merchant_id,
    sum(u.point_updates) AS point_updates,
    sum(u.retried) AS point_updates_retried
FROM (
    SELECT
        b.merchant_id,
        b.orders_changed + b.orders_unchanged + b.orders_skipped AS point_updates,
        0 AS retried
    FROM loyalty.award_batches AS b
    WHERE b.recorded_at > now() - interval '1 hour'
    UNION ALL
    SELECT
        q.merchant_id,
        -- An order that was decided in the end is in its batch.
        CASE WHEN q.operation = 'award' AND q.resolved_at IS NOT NULL THEN 0 ELSE 1 END,
        -- What is settled from the queue had its first try before it was put there.
        CASE WHEN q.attempts > 1 OR q.tries > 0 OR q.resolved_at IS NOT NULL THEN 1 ELSE 0 END
    FROM loyalty.recent_queue_items AS q
    -- What a person settles is no try.
    WHERE q.resolved_by IS NULL AND (q.resolved_at IS NOT NULL OR q.last_seen_at > now() - interval '1 hour')
) AS u
GROUP BY u.merchant_id;
COMMENT ON VIEW loyalty.metrics_point_updates IS
'Orders and queue items that were tried in the last hour, and those of them that took more than one try.';

CREATE VIEW loyalty.metrics_inbox AS
SELECT
    i.merchant_id,
    count(*) AS orders,
    extract(EPOCH FROM now() - min(i.enqueued_at)) AS oldest_seconds
FROM loyalty.order_inbox AS i
GROUP BY i.merchant_id;
COMMENT ON VIEW loyalty.metrics_inbox IS 'Orders that nobody has looked at.';

-- What failed ---------------------------------------------------------------------------------------------

CREATE VIEW loyalty.metrics_queue AS
SELECT
    q.merchant_id,
    count(*) FILTER (WHERE q.parked_at IS NULL AND q.tries = 0) AS items_waiting,
    count(*) FILTER (WHERE q.parked_at IS NULL AND q.tries > 0) AS items_retrying,
    count(q.parked_at) AS items_parked,
    extract(EPOCH FROM now() - min(q.created_at)) AS oldest_seconds,
    sum(coalesce(q.points_earned, 0) + coalesce(q.points_redeemed, 0)) AS points_at_stake,
    sum(q.tries) AS tries
FROM loyalty.reconciliation_queue AS q
WHERE q.resolved_at IS NULL
GROUP BY q.merchant_id;
COMMENT ON VIEW loyalty.metrics_queue IS
'Open items of the reconciliation queue; merchant_id is empty where nobody knows it yet.';

CREATE VIEW loyalty.metrics_findings AS
SELECT
    f.merchant_id,
    f.class,
    f.severity,
    f.currency,
    count(*) AS findings,
    sum(greatest(f.points_difference, 0)) AS points_too_many,
    sum(greatest(-f.points_difference, 0)) AS points_too_few,
    sum(f.amount_at_risk) AS amount_at_risk
FROM loyalty.findings AS f
WHERE f.closed_at IS NULL AND f.accepted_at IS NULL
GROUP BY f.merchant_id, f.class, f.severity, f.currency;
COMMENT ON VIEW loyalty.metrics_findings IS 'Open findings, a row per merchant, class, severity and currency.';

-- Mails ---------------------------------------------------------------------------------------------------

CREATE VIEW loyalty.metrics_mails_undelivered AS
SELECT
    n.merchant_id,
    count(*) FILTER (WHERE n.status = 'pending' AND n.attempts = 0) AS mails_waiting,
    count(*) FILTER (WHERE n.status = 'pending' AND n.attempts > 0) AS mails_retrying,
    count(*) FILTER (WHERE n.status = 'failed') AS mails_failed,
    -- Those that were given up wait for a person, as in sql/notifications/undelivered.sql.
    extract(EPOCH FROM now() - min(n.waits_since)) AS oldest_seconds
FROM (
    -- Two parts, an index for each.
    SELECT
        p.merchant_id,
        p.status,
        p.attempts,
        p.waits_since
    FROM loyalty.notifications AS p
    WHERE p.status = 'pending'
    UNION ALL
    SELECT
        f.merchant_id,
        f.status,
        f.attempts,
        f.waits_since
    FROM loyalty.notifications AS f
    WHERE f.status = 'failed'
) AS n
GROUP BY n.merchant_id;
COMMENT ON VIEW loyalty.metrics_mails_undelivered IS 'Mails that are to be sent, and those that were given up.';

CREATE VIEW loyalty.metrics_mails_settled AS
SELECT
    n.merchant_id,
    n.status,
    count(*) AS mails,
    count(*) FILTER (WHERE n.attempts > 1) AS mails_retried
FROM loyalty.notifications AS n
WHERE n.settled_at > now() - interval '1 hour'
GROUP BY n.merchant_id, n.status;
COMMENT ON VIEW loyalty.metrics_mails_settled IS
'What became of the mails of the last hour, a row per merchant and status, and how many of them took more than one try.';

-- Liability -----------------------------------------------------------------------------------------------

CREATE VIEW loyalty.metrics_liability AS
SELECT
    a.merchant_id,
    a.accounts,
    a.first_account_at,
    a.points,
    a.points * p.point_value_amount AS amount
FROM (
    SELECT
        one.merchant_id,
        count(*) AS accounts,
        min(one.created_at) AS first_account_at,
        sum(one.balance) AS points
    FROM loyalty.accounts AS one
    GROUP BY one.merchant_id
) AS a
LEFT JOIN LATERAL (
    -- The version in force, also of a programme that is off: its points are owed.
    SELECT v.point_value_amount
    FROM loyalty.programs AS v
    WHERE v.merchant_id = a.merchant_id AND v.valid_from <= now()
    ORDER BY v.valid_from DESC, v.version DESC
    LIMIT 1
) AS p ON true;
COMMENT ON VIEW loyalty.metrics_liability IS
'Accounts, the sum of their balances, and its worth in the merchant''s currency; no amount where no programme is in force.';

CREATE FUNCTION loyalty.shop_merchants() RETURNS TABLE (merchant_id text, currency text)
LANGUAGE plpgsql STABLE
AS $function$
BEGIN
    -- Each merchant once, whatever the mapped relation shows; none before a shop is mapped.
    IF to_regclass('loyalty_source.merchants') IS NOT NULL THEN
        RETURN QUERY
        SELECT DISTINCT ON (m.merchant_id)
            m.merchant_id COLLATE "C",
            m.currency
        FROM loyalty_source.merchants AS m
        ORDER BY m.merchant_id, m.currency;
    END IF;
END
$function$;

CREATE VIEW loyalty.metrics_merchants AS
SELECT
    m.merchant_id COLLATE "C" AS merchant_id,
    m.currency,
    -- When a programme was first set, not since when it applies: that may be years before.
    CASE
        WHEN p.is_active THEN (SELECT min(v.created_at) FROM loyalty.programs AS v WHERE v.merchant_id = m.merchant_id)
    END AS program_set_at,
    coalesce(p.points_expiration_days > 0, false) AS is_expiring
FROM loyalty.shop_merchants() AS m
LEFT JOIN LATERAL (
    SELECT
        v.is_active,
        v.points_expiration_days
    FROM loyalty.programs AS v
    WHERE v.merchant_id = m.merchant_id AND v.valid_from <= now()
    ORDER BY v.valid_from DESC, v.version DESC
    LIMIT 1
) AS p ON true;
COMMENT ON VIEW loyalty.metrics_merchants IS
'The shop''s merchants: currency, since when they have a programme (NULL: it is off, or there is none), and whether points
expire.';

-- Who was served last -------------------------------------------------------------------------------------

CREATE VIEW loyalty.last_successes AS
SELECT
    s.merchant_id,
    s.job,
    max(s.succeeded_at) AS succeeded_at,
    max(s.failed_at) AS failed_at
FROM (
    SELECT
        j.merchant_id,
        j.job,
        j.succeeded_at,
        j.failed_at
    FROM loyalty.merchant_jobs AS j
    UNION ALL
    -- As in sql/checks/late_merchants.sql: a run that was stopped, or that decided as of a past day, has served nobody.
    SELECT
        m.merchant_id,
        'expired_points',
        done.finished_at,
        NULL
    FROM (SELECT DISTINCT v.merchant_id FROM loyalty.programs AS v) AS m
    CROSS JOIN LATERAL (
        SELECT r.finished_at
        FROM loyalty.expiry_runs AS r
        WHERE
            r.merchant_id = m.merchant_id
            AND r.finished_at IS NOT NULL
            AND NOT r.is_stopped
            AND r.as_of > r.started_at - interval '26 hours'
        ORDER BY r.started_at DESC
        LIMIT 1
    ) AS done
    UNION ALL
    SELECT
        m.merchant_id,
        'live_awards',
        newest.recorded_at,
        NULL
    FROM (SELECT DISTINCT v.merchant_id FROM loyalty.programs AS v) AS m
    CROSS JOIN LATERAL (
        SELECT b.recorded_at
        FROM loyalty.award_batches AS b
        WHERE b.merchant_id = m.merchant_id
        ORDER BY b.batch_id DESC
        LIMIT 1
    ) AS newest
) AS s
GROUP BY s.merchant_id, s.job;
COMMENT ON VIEW loyalty.last_successes IS
'When each job last succeeded and last failed, a row per merchant and job. live_awards: the newest award batch, whoever
started it; a merchant without orders has none.';

-- The installation ----------------------------------------------------------------------------------------

CREATE VIEW loyalty.metrics_installation AS
SELECT
    now() AS collected_at,
    (SELECT min(v.version_num) FROM loyalty.schema_version AS v) AS schema_version,
    coalesce(NOT mapping.is_withdrawn, false) AS is_mapping_in_force,
    mapping.applied_at AS mapping_applied_at,
    coalesce(snapshots.oldest_transactions, 0) AS oldest_snapshot_transactions,
    CASE
        WHEN snapshots.holders > 0 THEN extract(EPOCH FROM now() - snapshots.oldest_at)
        ELSE 0
    END AS oldest_snapshot_seconds
FROM (
    -- What keeps vacuum from removing dead rows of this database: open transactions, prepared ones, replication slots.
    -- A session's age in transactions is everybody's to see, its time only its own user's and pg_read_all_stats'.
    SELECT
        count(*) AS holders,
        max(holder.transactions) AS oldest_transactions,
        min(holder.since) AS oldest_at
    FROM (
        SELECT
            greatest(age(a.backend_xmin), age(a.backend_xid)) AS transactions,
            a.xact_start AS since
        FROM pg_catalog.pg_stat_activity AS a
        WHERE
            a.datname = current_database()
            AND a.pid <> pg_backend_pid()
            AND (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
            -- Vacuum itself, which nobody waits for, has no user.
            AND a.usesysid IS NOT NULL
        UNION ALL
        SELECT
            age(x.transaction),
            x.prepared
        FROM pg_catalog.pg_prepared_xacts AS x
        WHERE x.database = current_database()
        UNION ALL
        SELECT
            greatest(age(r.xmin), age(r.catalog_xmin)),
            NULL
        FROM pg_catalog.pg_replication_slots AS r
        WHERE r.xmin IS NOT NULL OR r.catalog_xmin IS NOT NULL
    ) AS holder
) AS snapshots
LEFT JOIN (
    SELECT
        s.is_withdrawn,
        s.applied_at
    FROM loyalty.source_mapping AS s
    ORDER BY s.mapping_id DESC
    LIMIT 1
) AS mapping ON true;
COMMENT ON VIEW loyalty.metrics_installation IS
'One row: schema, mapping, and the oldest snapshot that keeps dead rows; its seconds are NULL where nobody may see them.';

-- Rights --------------------------------------------------------------------------------------------------

GRANT SELECT ON
loyalty.recent_queue_items, loyalty.metrics_awards, loyalty.metrics_point_updates, loyalty.metrics_inbox,
loyalty.metrics_queue, loyalty.metrics_findings,
loyalty.metrics_mails_undelivered, loyalty.metrics_mails_settled, loyalty.metrics_liability, loyalty.metrics_merchants,
loyalty.metrics_installation, loyalty.last_successes
TO loyalty_pipeline, loyalty_reader;
REVOKE EXECUTE ON FUNCTION loyalty.shop_merchants FROM public;
-- The view's function runs with the rights of who reads the view.
GRANT EXECUTE ON FUNCTION loyalty.shop_merchants TO loyalty_pipeline, loyalty_reader;

RESET ROLE;
