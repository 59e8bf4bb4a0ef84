"""The nightly expiry run, in the words of a test."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from loyalty_pipelines.db.expiry_run import expire_merchants
from loyalty_pipelines.domain.expiry import ExpiryOptions, Limits, MerchantExpiry, Page
from tests.shop import Shop

# A test's merchant has few accounts: all of them may expire in one night, where the test is not about that.
NO_LIMITS = Limits(accepted_accounts=1_000_000)
WARNING = "loyalty_points_expiring"
EXPIRED = "loyalty_points_expired"


def at(text: str) -> datetime:
    """Return an instant; without a zone it is UTC."""
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def night(day: date | str) -> datetime:
    """Return when the run of a day begins: at 02:00 UTC."""
    return datetime.combine(date.fromisoformat(day) if isinstance(day, str) else day, time(2), UTC)


def ago(shop: Shop, days: int) -> datetime:
    """Return noon in UTC of the day so many days ago, and now for none.

    At the same time of the day as now, a month of autumn or spring has a local day more or less, late in the evening.
    """
    return shop.value(
        "SELECT CASE WHEN :days = 0 THEN now() "
        "ELSE date_trunc('day', now(), 'UTC') + interval '12 hours' - make_interval(days => :days) END",
        days=days,
    )


def midnight(day: date | str, timezone: str = "Europe/Luxembourg") -> datetime:
    """Return the beginning of a day in a zone, as Python's own data has it."""
    chosen = date.fromisoformat(day) if isinstance(day, str) else day
    return datetime.combine(chosen, time(), ZoneInfo(timezone)).astimezone(UTC)


@dataclass(frozen=True, kw_only=True)
class Told:
    """A mail that a night has put into the outbox, and what it says then."""

    night_on: date
    merchant: str
    customer: str
    template: str
    points: int
    expires_at: datetime


@dataclass
class Nights:
    """Runs nights for a shop, and says what came of them."""

    shop: Shop

    def run(self, as_of: datetime | str | None = None, *, merchant: str = "m1", **options: Any) -> MerchantExpiry:
        """Run a night for one merchant; it must not fail."""
        (done,) = self.run_all(as_of, merchants=[merchant], **options)
        assert done.failure is None, done.failure
        return done

    def run_all(
        self,
        as_of: datetime | str | None = None,
        *,
        merchants: list[str] | None = None,
        run_id: str | None = None,
        on_page: Callable[[str, Page], None] | None = None,
        **options: Any,
    ) -> list[MerchantExpiry]:
        """Run a night for all merchants, or some."""
        options.setdefault("limits", NO_LIMITS)
        chosen = ExpiryOptions(as_of=at(as_of) if isinstance(as_of, str) else as_of, **options)
        return list(
            expire_merchants(self.shop.engine, merchants, options=chosen, actor="test", run_id=run_id, on_page=on_page)
        )

    def live(
        self,
        first: date | str,
        nights: int,
        *,
        is_delivered: bool = True,
        merchants: list[str] | None = None,
        **options: Any,
    ) -> list[Told]:
        """Run a night on each of so many days, deliver after each, and return the mails that came, night by night."""
        told: list[Told] = []
        begin = date.fromisoformat(first) if isinstance(first, str) else first
        known = self.shop.value("SELECT coalesce(max(notification_id), 0) FROM loyalty.notifications")
        for day in (begin + timedelta(days=number) for number in range(nights)):
            for done in self.run_all(night(day), merchants=merchants, **options):
                assert done.failure is None, done.failure
            for row in self.shop.rows(
                "SELECT *, CAST(payload ->> 'expires_at' AS timestamptz) AS expires_at FROM loyalty.notifications "
                "WHERE notification_id > :known AND template IN (:warning, :expired) ORDER BY notification_id",
                known=known,
                warning=WARNING,
                expired=EXPIRED,
            ):
                known = row.notification_id
                told.append(
                    Told(
                        night_on=day,
                        merchant=row.merchant_id,
                        customer=row.customer_id,
                        template=row.template,
                        points=row.payload["points"],
                        expires_at=row.expires_at,
                    )
                )
            if is_delivered:
                self.deliver()
        return told

    def deliver(self) -> None:
        """Deliver all mails that wait, as the mail server would."""
        self.settle("sent")

    def settle(self, status: str, *, customer: str | None = None) -> None:
        """Let mails that wait become sent, failed or parked: those of a customer, or all."""
        self.shop.run(
            "UPDATE loyalty.notifications SET status = :status, settled_at = now(), attempts = attempts + 1 "
            "WHERE status = 'pending' AND customer_id = coalesce(CAST(:customer AS text), customer_id)",
            status=status,
            customer=customer,
        )

    def account(
        self,
        customer: str = "ann",
        *,
        active_at: datetime | str,
        points: int = 100,
        merchant: str = "m1",
    ) -> None:
        """Give a customer points by an order that was paid and awarded then."""
        moment = at(active_at) if isinstance(active_at, str) else active_at
        self.shop.order(f"o-{merchant}-{customer}-{moment.isoformat()}", points, customer=customer, merchant=merchant,
                        paid_at=moment)  # fmt: skip
        self.shop.award()

    def crowd(
        self,
        count: int,
        *,
        active_at: datetime | str,
        points: int = 100,
        merchant: str = "m1",
        prefix: str = "c",
    ) -> None:
        """Give points to customers c1, c2, ... by opening balances, all of one instant."""
        values = {"merchant": merchant, "prefix": prefix, "count": count, "active_at": active_at, "points": points}
        self.shop.run(
            "WITH made AS (INSERT INTO loyalty.accounts (merchant_id, customer_id, balance, next_seq, "
            "last_activity_at, expires_at) "
            "SELECT :merchant, :prefix || n, :points, 2, CAST(:active_at AS timestamptz), "
            "loyalty.expiry_instant(:active_at, t.points_expiration_days, t.timezone) "
            "FROM generate_series(1, :count) AS n CROSS JOIN loyalty.merchant_terms(:merchant) AS t "
            "RETURNING account_id, customer_id) "
            "INSERT INTO loyalty.ledger_entries (merchant_id, account_id, seq, kind, points, balance_before, "
            "balance_after, reference_type, reference_id, reference_seq, actor, occurred_at) "
            "SELECT :merchant, account_id, 1, 'opening', :points, 0, :points, 'opening', customer_id, 1, 'test', "
            ":active_at FROM made ORDER BY account_id",
            **values,
        )

    def backdate(self, customer: str = "ann", *, active_at: datetime | str, merchant: str = "m1") -> None:
        """Make an account's last activity an earlier one: a checkout always acts now."""
        self.shop.run(
            "UPDATE loyalty.accounts AS a SET last_activity_at = :active_at, "
            "expires_at = loyalty.expiry_instant(:active_at, t.points_expiration_days, t.timezone) "
            "FROM loyalty.merchant_terms(:merchant) AS t WHERE a.merchant_id = :merchant AND a.customer_id = :customer",
            merchant=merchant,
            customer=customer,
            active_at=active_at,
        )

    def mails(self, template: str | None = None, *, merchant: str = "m1") -> list[tuple[str, str, dict[str, Any]]]:
        """Return customer, template and payload of every mail in the outbox, in order; of one template or of all."""
        return [
            (row.customer_id, row.template, row.payload)
            for row in self.shop.rows(
                "SELECT * FROM loyalty.notifications WHERE merchant_id = :merchant "
                "AND template = coalesce(CAST(:template AS text), template) ORDER BY notification_id",
                merchant=merchant,
                template=template,
            )
        ]

    def warnings(self, *, merchant: str = "m1") -> list[tuple[str, datetime, str]]:
        """Return customer, date and status of every warning in the outbox, in order."""
        return [
            (row.customer_id, row.expires_at, row.status)
            for row in self.shop.rows(
                "SELECT customer_id, CAST(payload ->> 'expires_at' AS timestamptz) AS expires_at, status "
                "FROM loyalty.notifications WHERE merchant_id = :merchant AND template = :template "
                "ORDER BY notification_id",
                merchant=merchant,
                template=WARNING,
            )
        ]

    def expired(self, *, merchant: str = "m1") -> dict[str, list[int]]:
        """Return what was taken from each customer, oldest first."""
        found: dict[str, list[int]] = {}
        for row in self.shop.rows(
            "SELECT a.customer_id, e.points FROM loyalty.ledger_entries AS e "
            "JOIN loyalty.accounts AS a USING (merchant_id, account_id) "
            "WHERE e.merchant_id = :merchant AND e.kind = 'expired' ORDER BY a.customer_id, e.seq",
            merchant=merchant,
        ):
            found.setdefault(row.customer_id, []).append(-row.points)
        return found

    def tables(self) -> dict[str, str]:
        """Return what each table of the ledger holds, as a fingerprint."""
        names = [
            row.relname
            for row in self.shop.rows(
                "SELECT relname FROM pg_class WHERE relnamespace = 'loyalty'::regnamespace AND relkind = 'r'"
            )
        ]
        return {
            name: self.shop.value(
                f"SELECT coalesce(md5(string_agg(CAST(t AS text), '/' ORDER BY CAST(t AS text))), '') "
                f"FROM loyalty.{name} AS t"
            )
            for name in names
        }
