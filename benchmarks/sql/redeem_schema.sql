-- What the bare statements write: the ledger's own accounts and entries, made again with all their keys and checks, and
-- with nothing else.
CREATE TABLE bare_accounts (LIKE loyalty.accounts INCLUDING ALL);
CREATE TABLE bare_entries (LIKE loyalty.ledger_entries INCLUDING ALL);
ALTER TABLE bare_accounts SET (fillfactor = 70);
ALTER TABLE bare_entries ADD FOREIGN KEY (merchant_id, account_id) REFERENCES bare_accounts (merchant_id, account_id);
CREATE TRIGGER bare_entries_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON bare_entries
FOR EACH STATEMENT EXECUTE FUNCTION loyalty.refuse_to_change_history();

INSERT INTO sample_shop.merchants (id, name, timezone, currency)
SELECT 'm' || n, 'm' || n, 'Europe/Luxembourg', 'EUR' FROM generate_series(1, 20) AS n;
INSERT INTO loyalty.programs (
    merchant_id, version, valid_from, points_per_unit, point_value_amount, points_expiration_days, created_by
)
SELECT 'm' || n, 1, '2000-01-01', 1, 0.01, 365, 'benchmark' FROM generate_series(1, 20) AS n;

INSERT INTO loyalty.accounts (merchant_id, customer_id, balance, next_seq)
SELECT 'm1', 'c' || n, 1000000000, 2 FROM generate_series(1, 1000) AS n;
INSERT INTO loyalty.ledger_entries (
    merchant_id, account_id, seq, kind, points, balance_before, balance_after, reference_type, reference_id, reference_seq,
    actor, occurred_at
)
SELECT merchant_id, account_id, 1, 'opening', balance, 0, balance, 'opening', customer_id, 1, 'benchmark', now()
FROM loyalty.accounts;
INSERT INTO bare_accounts OVERRIDING SYSTEM VALUE SELECT * FROM loyalty.accounts;
INSERT INTO bare_entries SELECT * FROM loyalty.ledger_entries;

CREATE FUNCTION bare_redeem(p_merchant text, p_customer text, p_order text, p_points bigint) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    a record;
BEGIN
    SELECT account_id, balance, next_seq INTO a
    FROM bare_accounts WHERE merchant_id = p_merchant COLLATE "C" AND customer_id = p_customer COLLATE "C" FOR UPDATE;
    INSERT INTO bare_entries (
        merchant_id, account_id, seq, kind, points, balance_before, balance_after, reference_type, reference_id,
        reference_seq, actor, occurred_at
    )
    VALUES (
        p_merchant, a.account_id, a.next_seq, 'redeemed', -p_points, a.balance, a.balance - p_points, 'redemption', p_order,
        1, 'bare', now()
    );
    UPDATE bare_accounts SET balance = balance - p_points, next_seq = next_seq + 1
    WHERE merchant_id = p_merchant COLLATE "C" AND account_id = a.account_id;
    RETURN a.balance - p_points;
END
$$;

ANALYZE;
