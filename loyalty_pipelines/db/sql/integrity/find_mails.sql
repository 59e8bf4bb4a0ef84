-- What must have a row in the outbox and has none: points that expired, a welcome bonus that was news, a warning that an
-- account counts as given. Index notifications_once_per_cause; reads the ledger's entries of two kinds and the accounts
-- once.
INSERT INTO found (merchant_id, class, object_type, object_id, points_difference, evidence)
SELECT
    e.merchant_id,
    'mail_missing',
    'entry',
    e.account_id || '/' || e.seq,
    0,
    jsonb_build_object('kind', e.kind, 'points', e.points, 'occurred_at', e.occurred_at, 'run_id', e.run_id)
FROM loyalty.ledger_entries AS e
LEFT JOIN loyalty.notifications AS n
    ON
        n.merchant_id = e.merchant_id
        AND n.dedupe_key = CASE e.kind
            WHEN 'expired' THEN 'expired/' || e.reference_id
            ELSE 'welcome_bonus/' || e.account_id
        END
WHERE
    (CAST(:merchant_ids AS text[]) IS NULL OR e.merchant_id = ANY(CAST(:merchant_ids AS text[])))
    AND (e.kind = 'expired' OR (e.kind = 'bonus' AND loyalty.is_news(e.occurred_at, e.recorded_at)))
    AND n.notification_id IS NULL
UNION ALL
SELECT
    a.merchant_id,
    'mail_missing',
    'account',
    CAST(a.account_id AS text),
    0,
    jsonb_build_object('customer_id', a.customer_id, 'warned_for', a.warned_for, 'balance', a.balance)
FROM loyalty.accounts AS a
INNER JOIN loyalty.settled_expiry_terms AS t ON t.merchant_id = a.merchant_id
WHERE
    (CAST(:merchant_ids AS text[]) IS NULL OR a.merchant_id = ANY(CAST(:merchant_ids AS text[])))
    AND a.is_active
    AND a.warned_for = a.expires_at
    AND NOT EXISTS (
        SELECT 1
        FROM loyalty.warnings_of_date(a.merchant_id, a.account_id, a.customer_id, a.warned_for, t.timezone)
    );
