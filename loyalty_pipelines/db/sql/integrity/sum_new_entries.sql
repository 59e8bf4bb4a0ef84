-- What was written since the marks: accounts with an entry of a transaction that had not ended then, each with its entries
-- after its seal. Accounts with open findings of :classes are read from their beginning, so that what was put right is
-- closed. Indexes ledger_entries_by_transaction, ledger_entries_pkey, account_seals_pkey, findings_open. An entry of a
-- transaction that this server has not come to is of the server that a backup was taken from: the full proof looks at it.
INSERT INTO integrity_sums (
    merchant_id, account_id, base_entries, base_balance, base_stamps, base_digest, entries, points, stamps, links, digest,
    is_adding_up, order_share, redemption_share, expired_seq, times_earned_again
)
WITH written AS (
    SELECT
        e.merchant_id,
        e.account_id
    FROM loyalty.ledger_entries AS e
    INNER JOIN loyalty.integrity_marks AS m ON m.merchant_id = e.merchant_id
    WHERE
        CAST(CAST(e.recorded_xid AS text) AS bigint) >= CAST(:since AS bigint)
        AND CAST(CAST(e.recorded_xid AS text) AS bigint) < CAST(:until AS bigint)
        AND e.recorded_xid >= m.verified_until
        AND (CAST(:merchant_ids AS text[]) IS NULL OR e.merchant_id = ANY(CAST(:merchant_ids AS text[])))
    GROUP BY e.merchant_id, e.account_id
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
    GROUP BY f.merchant_id, f.object_id
),

touched AS MATERIALIZED (
    SELECT
        t.merchant_id,
        t.account_id,
        coalesce(z.entries, 0) AS base_entries,
        coalesce(z.balance, 0) AS base_balance,
        coalesce(z.stamps, 0) AS base_stamps,
        coalesce(z.digest, 0) AS base_digest
    FROM (
        SELECT
            w.merchant_id,
            w.account_id,
            false AS is_from_its_beginning
        FROM written AS w
        WHERE NOT EXISTS (
            SELECT FROM found_before AS f WHERE f.merchant_id = w.merchant_id AND f.account_id = w.account_id
        )
        UNION ALL
        SELECT
            f.merchant_id,
            f.account_id,
            true
        FROM found_before AS f
    ) AS t
    LEFT JOIN loyalty.account_seals AS z
        ON z.merchant_id = t.merchant_id AND z.account_id = t.account_id AND NOT t.is_from_its_beginning
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
        bit_xor(loyalty.entry_digest(e.seq, e.kind, e.points, e.balance_after, e.stamps, e.reference_id)), 0
    ),
    coalesce(bool_and(e.balance_after = e.balance_before + e.points), true),
    coalesce(
        sum(
            CASE e.reference_type
                WHEN 'order' THEN loyalty.share_digest(e.points, CAST(e.stamps AS bigint), e.reference_id)
            END
        ),
        0
    ),
    coalesce(
        sum(CASE e.reference_type WHEN 'redemption' THEN loyalty.share_digest(e.points, 1, e.reference_id) END), 0
    ),
    coalesce(max(CASE e.kind WHEN 'expired' THEN e.seq END), 0),
    -- The first entry of an order has number 1, whatever account it is on.
    count(CASE WHEN e.kind = 'earned' AND e.reference_type = 'order' AND e.reference_seq <> 1 THEN 1 END)
FROM touched AS t
-- By key, whatever the planner expects of how many are touched.
LEFT JOIN LATERAL (
    SELECT *
    FROM loyalty.ledger_entries AS l
    WHERE l.merchant_id = t.merchant_id AND l.account_id = t.account_id AND l.seq > t.base_entries
    OFFSET 0
) AS e ON true
GROUP BY t.merchant_id, t.account_id, t.base_entries, t.base_balance, t.base_stamps, t.base_digest;
