-- Accounts with points whose date is not what the rule says: none, too early, or later than the rule and no mail said so;
-- where points never expire, any. A merge keeps the later date of two, and what an undone expiry gave back has a date of its
-- own: neither is later than the rule's date of an activity at that time, or than one that a mail has named to this
-- customer or to one who was merged. Only where the terms of now were those of the last night. Reads accounts once; for the
-- few that are too late, merged_customers_into, ledger_entries_pkey, notifications_once_per_cause.
INSERT INTO found (merchant_id, class, object_type, object_id, points_difference, evidence)
SELECT
    a.merchant_id,
    p.problem,
    'account',
    CAST(a.account_id AS text),
    0,
    jsonb_build_object(
        'customer_id', a.customer_id, 'balance', a.balance, 'last_activity_at', a.last_activity_at,
        'expires_at', a.expires_at, 'warned_for', a.warned_for,
        'expires_at_by_the_rule', loyalty.expiry_instant(a.last_activity_at, t.points_expiration_days, t.timezone)
    )
FROM loyalty.settled_expiry_terms AS t
INNER JOIN loyalty.accounts AS a ON a.merchant_id = t.merchant_id
CROSS JOIN LATERAL (
    SELECT
        loyalty.date_problem(
            a.is_active, a.balance, a.last_activity_at, a.expires_at, a.warned_for, t.points_expiration_days, t.timezone
        ) AS problem
) AS p
WHERE
    (CAST(:merchant_ids AS text[]) IS NULL OR t.merchant_id = ANY(CAST(:merchant_ids AS text[])))
    AND p.problem IS NOT NULL
    AND (
        p.problem <> 'date_too_late'
        OR NOT (
            SELECT
                coalesce(
                    a.expires_at <= loyalty.expiry_instant(
                        greatest(moved.merged_at, moved.undone_at), t.points_expiration_days, t.timezone
                    ),
                    false
                )
                OR (
                    moved.merged_at IS NOT NULL
                    AND EXISTS (
                        SELECT 1
                        FROM loyalty.warnings_of_date(
                            a.merchant_id, a.account_id, a.customer_id, a.expires_at, t.timezone
                        )
                    )
                )
            FROM (
                SELECT
                    (
                        SELECT max(m.merged_at)
                        FROM loyalty.merged_customers AS m
                        WHERE m.merchant_id = a.merchant_id AND m.into_customer_id = a.customer_id
                    ) AS merged_at,
                    (
                        SELECT max(e.recorded_at)
                        FROM loyalty.ledger_entries AS e
                        WHERE
                            e.merchant_id = a.merchant_id
                            AND e.account_id = a.account_id
                            AND e.reference_type = 'expiry'
                            AND e.reference_seq = 2
                    ) AS undone_at
            ) AS moved
        )
    );
