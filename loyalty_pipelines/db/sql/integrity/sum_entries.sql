-- Reads the ledger once, of some merchants or of all: per account its sums, and digests in which an unbroken chain and
-- the points of its orders can be recognised without sorting. Numbers are made of texts before they are grouped (OFFSET 0
-- keeps it so): what doesn't fit into memory is half as wide. Safe to repeat, writes to a temporary table only.
INSERT INTO integrity_sums (
    merchant_id, account_id, entries, points, stamps, links, digest, is_adding_up, share, expired_seq, times_earned_again
)
SELECT
    e.merchant_id,
    e.account_id,
    count(*),
    sum(e.points),
    sum(e.stamps),
    bit_xor(e.links),
    bit_xor(e.digest),
    bool_and(e.is_adding_up),
    coalesce(sum(e.share), 0),
    coalesce(max(e.expired_seq), 0),
    count(e.earned_again)
FROM (
    SELECT
        l.merchant_id,
        l.account_id,
        l.points,
        l.stamps,
        loyalty.links_digest(l.seq, l.balance_before, l.balance_after) AS links,
        loyalty.entry_digest(
            l.seq, l.kind, l.points, l.balance_after, l.stamps, l.reference_type, l.reference_id, l.reference_seq,
            l.recorded_at
        ) AS digest,
        l.balance_after = l.balance_before + l.points AS is_adding_up,
        CASE l.reference_type
            WHEN 'order' THEN loyalty.share_digest(l.points, l.stamps, l.reference_id)
            WHEN 'redemption' THEN loyalty.redemption_share_digest(l.points, 1, l.reference_id)
        END AS share,
        CASE l.kind WHEN 'expired' THEN l.seq END AS expired_seq,
        -- The first entry of an order has number 1, whatever account it is on. Most have: that is asked first.
        CASE WHEN l.reference_seq <> 1 AND l.kind = 'earned' AND l.reference_type = 'order' THEN 1 END AS earned_again
    FROM loyalty.ledger_entries AS l
    WHERE CAST(:merchant_ids AS text[]) IS NULL OR l.merchant_id = ANY(CAST(:merchant_ids AS text[]))
    OFFSET 0
) AS e
GROUP BY e.merchant_id, e.account_id;
