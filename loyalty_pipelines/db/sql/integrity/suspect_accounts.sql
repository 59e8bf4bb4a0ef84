-- Accounts, all of them, that don't fit the sums of their entries, the points that checkouts hold, or their seal; and sums
-- and seals that have no account. One whose seal is shorter than its history is looked at, too: the sealed part may have
-- changed. Reads accounts and account_seals once.
INSERT INTO integrity_suspects (merchant_id, account_id, base_entries, base_balance, base_stamps)
SELECT
    coalesce(a.merchant_id, s.merchant_id, z.merchant_id),
    coalesce(a.account_id, s.account_id, z.account_id),
    0,
    0,
    0
FROM (
    SELECT *
    FROM loyalty.accounts AS one
    WHERE CAST(:merchant_ids AS text[]) IS NULL OR one.merchant_id = ANY(CAST(:merchant_ids AS text[]))
) AS a
FULL JOIN integrity_sums AS s ON s.merchant_id = a.merchant_id AND s.account_id = a.account_id
LEFT JOIN (
    SELECT
        h.merchant_id,
        h.account_id,
        sum(h.points) AS points
    FROM loyalty.holds AS h
    WHERE h.status = 'open'
    GROUP BY h.merchant_id, h.account_id
) AS held ON held.merchant_id = a.merchant_id AND held.account_id = a.account_id
FULL JOIN (
    SELECT *
    FROM loyalty.account_seals AS one
    WHERE CAST(:merchant_ids AS text[]) IS NULL OR one.merchant_id = ANY(CAST(:merchant_ids AS text[]))
) AS z
    ON z.merchant_id = coalesce(a.merchant_id, s.merchant_id) AND z.account_id = coalesce(a.account_id, s.account_id)
WHERE
    loyalty.is_account_suspect(
        a.account_id, a.balance, a.stamp_count, a.next_seq, a.held, a.last_expiry_seq, a.is_debt_allowed, 0, 0, 0,
        coalesce(s.entries, 0), coalesce(s.points, 0), coalesce(s.stamps, 0), coalesce(s.links, 0),
        coalesce(s.is_adding_up, true), coalesce(s.expired_seq, 0), coalesce(held.points, 0)
    )
    OR z.entries <> coalesce(s.entries, 0)
    OR z.digest <> coalesce(s.digest, 0);
