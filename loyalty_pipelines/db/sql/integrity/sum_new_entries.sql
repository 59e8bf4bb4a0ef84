-- What was written since the marks: accounts with an entry of a transaction that had not ended then, each with its entries
-- after its seal. Accounts with open findings of :classes are read from their beginning, so that what was put right is
-- closed. Their orders and redemptions that are not sealed yet are noted in the same statement: each entry is read once.
-- Indexes ledger_entries_by_transaction, ledger_entries_pkey, account_seals_pkey, findings_open. An entry of a
-- transaction that this server has not come to is of the server that a backup was taken from: the full proof looks at it.
WITH written AS (
    SELECT
        e.merchant_id,
        e.account_id
    FROM loyalty.ledger_entries AS e
    WHERE
        CAST(CAST(e.recorded_xid AS text) AS bigint) >= CAST(:since AS bigint)
        AND CAST(CAST(e.recorded_xid AS text) AS bigint) < CAST(:until AS bigint)
        AND (CAST(:merchant_ids AS text[]) IS NULL OR e.merchant_id = ANY(CAST(:merchant_ids AS text[])))
),

found_before AS (
    SELECT
        f.merchant_id,
        CAST(f.object_id AS bigint) AS account_id
    FROM loyalty.findings AS f
    WHERE
        f.closed_at IS NULL
        AND f.subject = 'integrity'
        AND f.object_type = 'account'
        AND f.class = ANY(CAST(:classes AS text[]))
        AND (CAST(:merchant_ids AS text[]) IS NULL OR f.merchant_id = ANY(CAST(:merchant_ids AS text[])))
),

touched AS MATERIALIZED (
    SELECT
        t.merchant_id,
        t.account_id,
        coalesce(z.entries, 0) AS sealed_entries,
        CASE WHEN t.is_from_its_beginning THEN 0 ELSE coalesce(z.entries, 0) END AS base_entries,
        CASE WHEN t.is_from_its_beginning THEN 0 ELSE coalesce(z.balance, 0) END AS base_balance,
        CASE WHEN t.is_from_its_beginning THEN 0 ELSE coalesce(z.stamps, 0) END AS base_stamps,
        CASE WHEN t.is_from_its_beginning THEN 0 ELSE coalesce(z.digest, 0) END AS base_digest
    FROM (
        SELECT
            b.merchant_id,
            b.account_id,
            bool_or(b.is_from_its_beginning) AS is_from_its_beginning
        FROM (
            SELECT
                w.merchant_id,
                w.account_id,
                false AS is_from_its_beginning
            FROM written AS w
            UNION ALL
            SELECT
                f.merchant_id,
                f.account_id,
                true
            FROM found_before AS f
        ) AS b
        GROUP BY b.merchant_id, b.account_id
    ) AS t
    LEFT JOIN loyalty.account_seals AS z ON z.merchant_id = t.merchant_id AND z.account_id = t.account_id
),

news AS MATERIALIZED (
    SELECT
        l.*,
        l.seq > t.sealed_entries AS is_unsealed
    FROM touched AS t
    -- By key, whatever the planner expects of how many are touched.
    CROSS JOIN LATERAL (
        SELECT *
        FROM loyalty.ledger_entries AS one
        WHERE one.merchant_id = t.merchant_id AND one.account_id = t.account_id AND one.seq > t.base_entries
        OFFSET 0
    ) AS l
),

orders AS (
    INSERT INTO integrity_orders (merchant_id, reference_type, order_id)
    SELECT DISTINCT
        n.merchant_id,
        n.reference_type,
        n.reference_id
    FROM news AS n
    WHERE n.is_unsealed AND n.reference_type IN ('order', 'redemption')
)

INSERT INTO integrity_sums (
    merchant_id, account_id, base_entries, base_balance, base_stamps, base_digest, entries, points, stamps, links, digest,
    is_adding_up, share, expired_seq, times_earned_again
)
SELECT
    t.merchant_id,
    t.account_id,
    t.base_entries,
    t.base_balance,
    t.base_stamps,
    t.base_digest,
    count(e.seq),
    coalesce(sum(e.points), 0),
    coalesce(sum(e.stamps), 0),
    coalesce(bit_xor(loyalty.links_digest(e.seq, e.balance_before, e.balance_after)), 0),
    coalesce(
        bit_xor(
            loyalty.entry_digest(
                e.seq, e.kind, e.points, e.balance_after, e.stamps, e.reference_type, e.reference_id, e.reference_seq,
                e.recorded_at
            )
        ),
        0
    ),
    coalesce(bool_and(e.balance_after = e.balance_before + e.points), true),
    -- Orders of new entries are compared one by one.
    0,
    coalesce(max(CASE e.kind WHEN 'expired' THEN e.seq END), 0),
    0
FROM touched AS t
LEFT JOIN news AS e ON e.merchant_id = t.merchant_id AND e.account_id = t.account_id
GROUP BY t.merchant_id, t.account_id, t.base_entries, t.base_balance, t.base_stamps, t.base_digest
-- In the order of the keys by which accounts and seals are looked up next, so that their pages are read once.
ORDER BY t.merchant_id, t.account_id;
