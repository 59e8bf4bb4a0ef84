-- Writes the mails of the cards that the batch has filled. Run only for merchants with a stamp target, after the stamps are
-- counted. Once per account and round: see loyalty.announce_rewards. Only customers with a stamp of an order that is still
-- news are looked at: the function would find none of the others worth a mail. Index accounts_one_per_customer.
SELECT loyalty.announce_rewards(
    :merchant_id, CAST(:stamp_target AS integer), changes.account_ids, changes.stamps, changes.paid_at
) AS mails
FROM (
    SELECT
        array_agg(a.account_id) AS account_ids,
        array_agg(l.target_stamps - l.stamps_in_force) AS stamps,
        array_agg(l.paid_at) AS paid_at
    FROM award_lines AS l
    -- OFFSET 0: by key, also while a first run makes accounts faster than they are analyzed.
    CROSS JOIN LATERAL (
        SELECT one.account_id
        FROM loyalty.accounts AS one
        WHERE one.merchant_id = :merchant_id AND one.customer_id = l.customer_id
        OFFSET 0
    ) AS a
    WHERE
        l.is_changed
        AND l.target_stamps <> l.stamps_in_force
        AND l.customer_id IN (
            SELECT recent.customer_id
            FROM award_lines AS recent
            WHERE
                recent.is_changed
                AND recent.target_stamps > recent.stamps_in_force
                AND loyalty.is_news(recent.paid_at, now())
        )
) AS changes
WHERE changes.account_ids IS NOT NULL;
