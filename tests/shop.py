"""A shop and its operator, in the words of a test: what the shop writes, what the ledger then says."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, event, text

from loyalty_pipelines.db import expiry
from loyalty_pipelines.db.drain import DrainOptions, drain
from loyalty_pipelines.domain.awards import AwardReport
from loyalty_pipelines.domain.expiry import Position

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass
class Shop:
    """Writes the sample shop's tables as a shop would, and reads the ledger."""

    engine: Engine

    def run(self, statement: str, **values: Any) -> None:
        """Run one statement in a transaction of its own."""
        with self.engine.begin() as conn:
            conn.execute(text(statement), values)

    def rows(self, statement: str, **values: Any) -> list[Any]:
        """Return the rows of a query."""
        with self.engine.connect() as conn:
            return list(conn.execute(text(statement), values))

    def value(self, statement: str, **values: Any) -> Any:
        """Return the only value of a query."""
        with self.engine.connect() as conn:
            return conn.execute(text(statement), values).scalar_one()

    def merchant(
        self, merchant_id: str = "m1", *, timezone: str = "Europe/Luxembourg", currency: str = "EUR", **program: Any
    ) -> None:
        """Add a merchant with a programme of one point per unit, in force since 2000."""
        self.run(
            "INSERT INTO sample_shop.merchants (id, name, timezone, currency) VALUES (:id, :id, :tz, :currency)",
            id=merchant_id,
            tz=timezone,
            currency=currency,
        )
        self.program(merchant_id, **program)

    def program(self, merchant_id: str = "m1", **rules: Any) -> None:
        """Add a version of the merchant's programme."""
        values: dict[str, Any] = {"valid_from": LONG_AGO, "points_per_unit": 1, "created_by": "test", **rules}
        columns = ", ".join(values)
        binds = ", ".join(f":{name}" for name in values)
        self.run(
            f"INSERT INTO loyalty.programs (merchant_id, version, {columns}) VALUES (:merchant_id, (SELECT "
            f"coalesce(max(version), 0) + 1 FROM loyalty.programs WHERE merchant_id = :merchant_id), {binds})",
            merchant_id=merchant_id,
            **values,
        )

    def order(
        self,
        order_id: str,
        total: Decimal | str | float | None,
        *,
        customer: str | None = "ann",
        merchant: str = "m1",
        status: str | None = "paid",
        currency: str | None = "EUR",
        points_redeemed: int = 0,
        paid_at: datetime | str | None = "now",
    ) -> None:
        """Write an order, or change it; `paid_at` 'now' is the time of the statement."""
        self.run(
            """
            INSERT INTO sample_shop.orders AS o
                (merchant_id, id, customer_id, total, points_redeemed, currency, status, paid_at)
            VALUES (:merchant, :id, :customer, :total, :redeemed, :currency, :status, CAST(:paid_at AS timestamptz))
            ON CONFLICT (merchant_id, id) DO UPDATE SET customer_id = excluded.customer_id, total = excluded.total,
                points_redeemed = excluded.points_redeemed, currency = excluded.currency, status = excluded.status,
                paid_at = coalesce(o.paid_at, excluded.paid_at), updated_at = clock_timestamp()
            """,
            merchant=merchant,
            id=order_id,
            customer=customer,
            total=total,
            redeemed=points_redeemed,
            currency=currency,
            status=status,
            paid_at=paid_at,
        )

    def set_status(self, order_id: str, status: str, *, merchant: str = "m1") -> None:
        """Change the status of an order."""
        self.run(
            "UPDATE sample_shop.orders SET status = :status, updated_at = clock_timestamp() "
            "WHERE merchant_id = :merchant AND id = :id",
            merchant=merchant,
            id=order_id,
            status=status,
        )

    def refund(self, order_id: str, amount: Decimal | str | float, *, merchant: str = "m1") -> None:
        """Refund a part of an order."""
        self.run(
            "INSERT INTO sample_shop.refunds (merchant_id, id, order_id, amount) "
            "VALUES (:merchant, gen_random_uuid()::text, :id, :amount)",
            merchant=merchant,
            id=order_id,
            amount=amount,
        )

    def enqueue(self, *order_ids: str, merchant: str = "m1") -> None:
        """Have orders looked at again, as the sweep, polling or a replay does."""
        for order_id in order_ids:
            self.run(
                "INSERT INTO loyalty.order_inbox (merchant_id, customer_id, order_id, source) SELECT :merchant, "
                "coalesce(max(customer_id), ''), :id, 'test' FROM sample_shop.orders "
                "WHERE merchant_id = :merchant AND id = :id",
                merchant=merchant,
                id=order_id,
            )

    def change(self, order_id: str, *, merchant: str = "m1", **columns: Any) -> None:
        """Change columns of an order."""
        changes = "".join(f"{name} = :{name}, " for name in columns)
        self.run(
            f"UPDATE sample_shop.orders SET {changes} updated_at = clock_timestamp() "
            "WHERE merchant_id = :merchant AND id = :order_id",
            merchant=merchant,
            order_id=order_id,
            **columns,
        )

    def delete(self, order_id: str, *, merchant: str = "m1") -> None:
        """Delete an order, which no trigger tells of."""
        self.run(
            "DELETE FROM sample_shop.orders WHERE merchant_id = :merchant AND id = :id",
            merchant=merchant,
            id=order_id,
        )

    def drain(self, **options: Any) -> AwardReport:
        """Drain the inbox; merchants may fail."""
        return drain(self.engine, options=DrainOptions(**options), actor="test", run_id="test-run")

    def award(self, **options: Any) -> AwardReport:
        """Drain the inbox, failing the test when a merchant fails or a statement was refused on the way.

        Without the second, splitting a batch would hide an order that only fails beside others.
        """
        refused: list[str] = []

        def note(context: Any) -> None:
            refused.append(str(context.original_exception))

        event.listen(self.engine, "handle_error", note)
        try:
            report = self.drain(**options)
        finally:
            event.remove(self.engine, "handle_error", note)
        assert report.failures == {}
        assert refused == []
        return report

    def inbox(self, *, merchant: str = "m1") -> int:
        """Return how many rows wait in the inbox."""
        return self.value("SELECT count(*) FROM loyalty.order_inbox WHERE merchant_id = :merchant", merchant=merchant)

    def account(self, customer: str = "ann", *, merchant: str = "m1") -> Any:
        """Return a customer's account."""
        (row,) = self.rows(
            "SELECT * FROM loyalty.accounts WHERE merchant_id = :merchant AND customer_id = :customer",
            merchant=merchant,
            customer=customer,
        )
        return row

    def tracked(self, order_id: str, *, merchant: str = "m1") -> dict[str, tuple[int, int, int]]:
        """Return target, in force and waived points of an order by customer."""
        return {
            row.customer_id: (row.target_points, row.in_force_points, row.waived_points)
            for row in self.rows(
                "SELECT * FROM loyalty.order_points JOIN loyalty.accounts USING (merchant_id, account_id) "
                "WHERE merchant_id = :merchant AND order_id = :id",
                merchant=merchant,
                id=order_id,
            )
        }

    def balance(self, customer: str = "ann", *, merchant: str = "m1") -> int:
        """Return a customer's balance; 0 without an account."""
        return self.value(
            "SELECT coalesce(max(balance), 0) FROM loyalty.accounts "
            "WHERE merchant_id = :merchant AND customer_id = :customer",
            merchant=merchant,
            customer=customer,
        )

    def entries(self, customer: str = "ann", *, merchant: str = "m1") -> list[tuple[str, int]]:
        """Return kind and points of a customer's ledger entries, oldest first."""
        return [
            (row.kind, row.points)
            for row in self.rows(
                "SELECT e.kind, e.points FROM loyalty.ledger_entries AS e "
                "JOIN loyalty.accounts AS a USING (merchant_id, account_id) "
                "WHERE e.merchant_id = :merchant AND a.customer_id = :customer ORDER BY e.seq",
                merchant=merchant,
                customer=customer,
            )
        ]

    def queued(self, *, merchant: str = "m1") -> dict[str, str]:
        """Return the open queue items: reason by order."""
        return {
            row.order_id: row.reason
            for row in self.rows(
                "SELECT order_id, reason FROM loyalty.reconciliation_queue "
                "WHERE merchant_id = :merchant AND resolved_at IS NULL",
                merchant=merchant,
            )
        }

    def spend(self, customer: str, points: int, *, merchant: str = "m1") -> None:
        """Redeem points on orders that the shop does not show."""
        while points > 0:
            part = min(points, 2_000_000_000)
            self.run(
                "SELECT loyalty.redeem_points(:merchant, :customer, gen_random_uuid()::text, :points)",
                merchant=merchant,
                customer=customer,
                points=part,
            )
            points -= part

    def expire(self, customer: str, *, merchant: str = "m1") -> None:
        """Let an account's date be over, whatever the programme says, and take its points as a night does."""
        run_id = uuid.uuid4().hex
        with self.engine.begin() as conn:
            values = {"merchant": merchant, "customer": customer}
            conn.execute(
                text(
                    "UPDATE loyalty.accounts SET expires_at = now() "
                    "WHERE merchant_id = :merchant AND customer_id = :customer"
                ),
                values,
            )
            as_of = expiry.now(conn)
            expiry.begin_run(conn, merchant, run_id=run_id, as_of=as_of, actor="test")
            expiry.expire_page(
                conn,
                merchant,
                run_id=run_id,
                as_of=as_of,
                is_warning_required=False,
                actor="test",
                after=Position(),
                page_size=1000,
            )
            expiry.finish_run(conn, merchant, run_id=run_id, as_of=as_of, accounts_locked=0, is_stopped=False)

    def problems(self, *, merchant: str | None = None) -> list[str]:
        """Return every violation of the ledger's invariants, of one merchant or of all; a right ledger has none."""
        return [row.problem for row in self.rows(INVARIANTS, merchant=merchant)]


# The invariants of the ledger, restated from the rows alone.
INVARIANTS = """
WITH accounts AS (
    SELECT * FROM loyalty.accounts WHERE merchant_id = coalesce(CAST(:merchant AS text), merchant_id)
),
ledger_entries AS (
    SELECT * FROM loyalty.ledger_entries WHERE merchant_id = coalesce(CAST(:merchant AS text), merchant_id)
),
order_points AS (
    SELECT * FROM loyalty.order_points WHERE merchant_id = coalesce(CAST(:merchant AS text), merchant_id)
),
award_batches AS (
    SELECT * FROM loyalty.award_batches WHERE merchant_id = coalesce(CAST(:merchant AS text), merchant_id)
)
SELECT format('balance of account %s is %s, its entries sum to %s', account_id, balance, points) AS problem
FROM (SELECT a.account_id, a.balance, coalesce(sum(e.points), 0) AS points FROM accounts a
      LEFT JOIN ledger_entries e USING (merchant_id, account_id) GROUP BY a.merchant_id, a.account_id, a.balance) s
WHERE balance <> points
UNION ALL
SELECT format('stamps of account %s are %s, its entries sum to %s', account_id, stamp_count, stamps)
FROM (SELECT a.account_id, a.stamp_count, coalesce(sum(e.stamps), 0) AS stamps FROM accounts a
      LEFT JOIN ledger_entries e USING (merchant_id, account_id) GROUP BY a.merchant_id, a.account_id, a.stamp_count) s
WHERE stamp_count <> stamps
UNION ALL
SELECT format('entry %s of account %s: expected seq %s and balance before %s', seq, account_id, n, previous)
FROM (SELECT account_id, seq, balance_before, row_number() OVER w AS n,
             lag(balance_after, 1, 0::bigint) OVER w AS previous
      FROM ledger_entries WINDOW w AS (PARTITION BY merchant_id, account_id ORDER BY seq)) s
WHERE seq <> n OR balance_before <> previous
UNION ALL
SELECT format('account %s: next_seq %s after %s entries', account_id, next_seq, n)
FROM (SELECT a.account_id, a.next_seq, count(e.seq) AS n FROM accounts a
      LEFT JOIN ledger_entries e USING (merchant_id, account_id) GROUP BY a.merchant_id, a.account_id, a.next_seq) s
WHERE next_seq <> n + 1
UNION ALL
SELECT format('order %s: in force %s, entries %s', coalesce(o.order_id, e.reference_id), o.points, e.points)
FROM (SELECT merchant_id, order_id, account_id, in_force_points AS points, stamps_in_force AS stamps
      FROM order_points) o
FULL JOIN (SELECT merchant_id, reference_id, account_id, sum(points) AS points, sum(stamps) AS stamps
           FROM ledger_entries WHERE reference_type = 'order' GROUP BY 1, 2, 3) e
    ON e.merchant_id = o.merchant_id AND e.reference_id = o.order_id AND e.account_id = o.account_id
WHERE coalesce(o.points, 0) <> coalesce(e.points, 0) OR coalesce(o.stamps, 0) <> coalesce(e.stamps, 0)
UNION ALL
SELECT format('account %s is below zero: %s', account_id, balance)
FROM accounts WHERE balance < 0 AND NOT is_debt_allowed
UNION ALL
SELECT format('order %s earned %s times', reference_id, count(*))
FROM ledger_entries WHERE reference_type = 'order' AND kind = 'earned'
GROUP BY merchant_id, reference_id HAVING count(*) > 1
UNION ALL
SELECT format('order %s is deserved by %s accounts', order_id, count(*))
FROM order_points WHERE target_points > 0 GROUP BY merchant_id, order_id HAVING count(*) > 1
UNION ALL
SELECT format('account %s: last_expiry_seq is %s, last expiry in force %s', account_id, a.last_expiry_seq, e.seq)
FROM accounts a LEFT JOIN (SELECT merchant_id, account_id, max(seq) AS seq FROM ledger_entries t
    WHERE kind = 'expired' AND NOT EXISTS (SELECT FROM ledger_entries u WHERE u.merchant_id = t.merchant_id
        AND u.reference_type = 'expiry' AND u.reference_id = t.reference_id AND u.reference_seq = 2)
    GROUP BY 1, 2) e USING (merchant_id, account_id)
WHERE a.last_expiry_seq <> coalesce(e.seq, 0)
UNION ALL
SELECT format('expiry run %s of %s: %s accounts, %s points, undone %s, %s; its entries: %s, %s, undone %s, %s', run_id,
              merchant_id, r.accounts_expired, r.points_expired, r.accounts_undone, r.points_undone,
              e.accounts_expired, e.points_expired, e.accounts_undone, e.points_undone)
FROM (SELECT * FROM loyalty.expiry_runs WHERE merchant_id = coalesce(CAST(:merchant AS text), merchant_id)) r
FULL JOIN (SELECT merchant_id, run_id,
                  count(*) FILTER (WHERE kind = 'expired') AS accounts_expired,
                  -sum(points) FILTER (WHERE kind = 'expired') AS points_expired,
                  count(*) FILTER (WHERE kind = 'adjusted') AS accounts_undone,
                  coalesce(sum(points) FILTER (WHERE kind = 'adjusted'), 0) AS points_undone
           FROM ledger_entries WHERE reference_type = 'expiry' GROUP BY 1, 2) e USING (merchant_id, run_id)
WHERE (r.accounts_expired, r.points_expired, r.accounts_undone, r.points_undone) IS DISTINCT FROM
    (coalesce(e.accounts_expired, 0), coalesce(e.points_expired, 0),
     coalesce(e.accounts_undone, 0), coalesce(e.points_undone, 0))
UNION ALL
SELECT format('expired: entry %s of %s points, mail %s', coalesce(e.reference_id, n.dedupe_key), e.points, n.payload)
FROM (SELECT * FROM ledger_entries WHERE kind = 'expired') e
FULL JOIN (SELECT * FROM loyalty.notifications WHERE template = 'loyalty_points_expired'
           AND merchant_id = coalesce(CAST(:merchant AS text), merchant_id)) n
    ON n.merchant_id = e.merchant_id AND n.dedupe_key = 'expired/' || e.reference_id
WHERE (n.payload ->> 'points')::bigint IS DISTINCT FROM -e.points
UNION ALL
SELECT format('account %s is warned of %s, but there is no such mail', account_id, warned_for)
FROM accounts a JOIN loyalty.expiry_terms t USING (merchant_id)
WHERE a.is_active AND a.warned_for = a.expires_at AND NOT EXISTS (SELECT FROM loyalty.notifications n
    JOIN loyalty.accounts own ON own.merchant_id = n.merchant_id AND own.customer_id = n.customer_id
    LEFT JOIN loyalty.merged_customers m ON m.merchant_id = n.merchant_id AND m.customer_id = n.customer_id
    WHERE n.merchant_id = a.merchant_id AND coalesce(m.into_customer_id, n.customer_id) = a.customer_id
        AND n.status <> 'void' AND n.dedupe_key = 'expiring/' || own.account_id || '/'
        || CAST(CAST(a.warned_for AT TIME ZONE t.timezone AS date) AS text))
UNION ALL
-- Where the terms of the last night are still in force.
SELECT format('account %s has %s points and no date', account_id, balance)
FROM accounts a JOIN (SELECT k.* FROM loyalty.expiry_terms k CROSS JOIN LATERAL loyalty.merchant_terms(k.merchant_id) t
    WHERE k.is_program_active AND t.is_program_active AND k.points_expiration_days > 0
        AND t.points_expiration_days = k.points_expiration_days) k USING (merchant_id)
WHERE a.is_active AND a.balance > 0 AND a.last_activity_at IS NOT NULL AND a.expires_at IS NULL
UNION ALL
SELECT format('batches of %s: %s entries and %s points, ledger: %s and %s',
              merchant_id, b.entries, b.points, l.entries, l.points)
FROM (SELECT merchant_id, sum(entries_written) AS entries, sum(points_changed) AS points
      FROM award_batches GROUP BY merchant_id) b
FULL JOIN (SELECT merchant_id, count(*) AS entries, sum(points) AS points
           -- Entries of a checkout or a merge say so.
           FROM ledger_entries WHERE reference_type = 'order' AND reason IS NULL GROUP BY merchant_id) l
    USING (merchant_id)
WHERE coalesce(b.entries, 0) <> coalesce(l.entries, 0) OR coalesce(b.points, 0) <> coalesce(l.points, 0)
UNION ALL
SELECT format('account %s holds %s, its open holds are %s', account_id, held, points)
FROM (SELECT a.account_id, a.held, coalesce(sum(h.points) FILTER (WHERE h.status = 'open'), 0) AS points
      FROM accounts a LEFT JOIN loyalty.holds h USING (merchant_id, account_id)
      GROUP BY a.merchant_id, a.account_id, a.held) s
WHERE held <> points
UNION ALL
SELECT format('redemption of order %s is %s over %s points and has %s entries, ledger: %s in %s', order_id, h.status,
              h.points, h.last_reference_seq, coalesce(e.points, 0), coalesce(e.entries, 0))
FROM (SELECT * FROM loyalty.holds WHERE merchant_id = coalesce(CAST(:merchant AS text), merchant_id)) h
FULL JOIN (SELECT merchant_id, reference_id AS order_id, sum(points) AS points, count(*) AS entries
           FROM ledger_entries WHERE reference_type = 'redemption' GROUP BY 1, 2) e USING (merchant_id, order_id)
WHERE coalesce(e.points, 0) <> CASE h.status WHEN 'captured' THEN -h.points ELSE 0 END
    OR coalesce(e.entries, 0) <> coalesce(h.last_reference_seq, 0)
"""
