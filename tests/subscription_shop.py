"""A shop that sells subscriptions, in the words of a test: what it writes, and what a check then finds."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Self

from sqlalchemy import text

from loyalty_pipelines.db import findings
from loyalty_pipelines.db.engine import reading
from loyalty_pipelines.db.subscriptions_run import check
from loyalty_pipelines.domain.awards import AwardReport
from loyalty_pipelines.domain.findings import Finding
from loyalty_pipelines.domain.subscriptions import SUBJECT, MerchantComparison
from tests.shop import Shop

# The instant that tests call now: in the past, whenever they run, and a month of 30 days in a year of 365.
NOW = datetime(2025, 6, 10, 12, tzinfo=UTC)
Money = Decimal | str | int
Found = tuple[str, str, str]


def day(days: float) -> datetime:
    """Return the instant so many days after now; before it, where negative."""
    return NOW + timedelta(days=days)


class BusyShop(Shop):
    """A shop whose many writes are one transaction, until it is left: a commit for each row takes most of the time."""

    def __enter__(self) -> Self:
        self.conn = self.engine.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.conn.commit()
        self.conn.close()

    def run(self, statement: str, **values: Any) -> None:
        """Run one statement."""
        self.conn.execute(text(statement), values)

    def drain(self, **options: Any) -> AwardReport:
        """Commit, and drain the inbox."""
        self.conn.commit()
        return super().drain(**options)


@dataclass
class SubscriptionShop:
    """Writes the tables of one merchant of the sample shop. Everything is of now or relative to it, unless told."""

    shop: Shop
    merchant_id: str = "m1"

    def insert(self, table: str, **values: Any) -> None:
        """Write one row of the sample shop."""
        values = {"merchant_id": self.merchant_id, **values}
        columns, binds = ", ".join(values), ", ".join(f":{name}" for name in values)
        self.shop.run(f"INSERT INTO sample_shop.{table} ({columns}) VALUES ({binds})", **values)

    def change(self, table: str, row_id: str, **values: Any) -> None:
        """Change columns of one row of the sample shop."""
        changes = ", ".join(f"{name} = :{name}" for name in values)
        self.shop.run(
            f"UPDATE sample_shop.{table} SET {changes} WHERE merchant_id = :merchant_id AND id = :row_id",
            merchant_id=self.merchant_id,
            row_id=row_id,
            **values,
        )

    def delete(self, table: str, row_id: str) -> None:
        """Delete one row of the sample shop."""
        self.shop.run(
            f"DELETE FROM sample_shop.{table} WHERE merchant_id = :merchant_id AND id = :row_id",
            merchant_id=self.merchant_id,
            row_id=row_id,
        )

    def merchant(self, currency: str = "EUR") -> None:
        """List the merchant, without a programme of points."""
        self.shop.run(
            "INSERT INTO sample_shop.merchants (id, name, timezone, currency) VALUES (:id, :id, 'UTC', :currency)",
            id=self.merchant_id,
            currency=currency,
        )

    def settings(self, **values: Any) -> None:
        """Set how the merchant is compared."""
        columns, binds = ", ".join(values), ", ".join(f":{name}" for name in values)
        self.shop.run(
            f"INSERT INTO loyalty.subscription_settings (merchant_id, changed_by, {columns}) "
            f"VALUES (:merchant_id, 'test', {binds})",
            merchant_id=self.merchant_id,
            **values,
        )

    def customer(self, customer_id: str = "ann", **values: Any) -> None:
        """Add a customer, or keep the one that is there."""
        self.shop.run(
            "INSERT INTO sample_shop.customers (merchant_id, id, email, created_at) "
            "VALUES (:merchant_id, :id, :email, :created_at) ON CONFLICT DO NOTHING",
            **{
                "merchant_id": self.merchant_id,
                "id": customer_id,
                "email": f"{customer_id}@example.test",
                "created_at": day(-900),
                **values,
            },
        )

    def plan(self, plan_id: str = "basic", price: Money = 30, interval: str = "month", **values: Any) -> None:
        """Add a plan."""
        self.insert(
            "plans",
            **{
                "id": plan_id,
                "name": plan_id,
                "price": price,
                "currency": "EUR",
                "billing_interval": interval,
                **values,
            },
        )

    def order(
        self,
        order_id: str = "o",
        total: Money = 30,
        *,
        at: datetime = NOW,
        customer: str | None = "ann",
        plan: str | None = "basic",
        **values: Any,
    ) -> None:
        """Write a paid order, of a plan unless told."""
        paid_at = at if values.get("status", "paid") in ("paid", "partially_refunded", "refunded") else None
        self.insert(
            "orders",
            **{
                "id": order_id,
                "customer_id": customer,
                "total": total,
                "currency": "EUR",
                "status": "paid",
                "plan_id": plan,
                "paid_at": paid_at,
                "created_at": at,
                "updated_at": at,
                **values,
            },
        )

    def payment(
        self,
        payment_id: str = "p",
        amount: Money = 30,
        *,
        at: datetime = NOW,
        order: str | None = None,
        subscription: str | None = None,
        period: tuple[datetime | str, datetime | str] | None = None,
        **values: Any,
    ) -> None:
        """Write a captured payment; of a customer only where its order or subscription name none."""
        is_taken = values.get("status", "captured") in ("captured", "refunded", "disputed")
        start, end = period or (None, None)
        self.insert(
            "payments",
            **{
                "id": payment_id,
                "amount": amount,
                "currency": "EUR",
                "status": "captured",
                "order_id": order,
                "subscription_id": subscription,
                "captured_at": at if is_taken else None,
                "period_start": start,
                "period_end": end,
                "created_at": at,
                "updated_at": at,
                **values,
            },
        )

    def subscription(
        self,
        subscription_id: str = "s",
        *,
        customer: str | None = "ann",
        plan: str | None = "basic",
        order: str | None = None,
        period: tuple[Any, Any] = (NOW, NOW + timedelta(days=30)),
        **values: Any,
    ) -> None:
        """Write a subscription, active unless told."""
        self.insert(
            "subscriptions",
            **{
                "id": subscription_id,
                "customer_id": customer,
                "plan_id": plan,
                "order_id": order,
                "status": "active",
                "price": None,
                "currency": "EUR",
                "period_start": period[0],
                "period_end": period[1],
                "created_at": period[0],
                "updated_at": period[0],
                **values,
            },
        )

    def subscribed(
        self,
        customer: str = "ann",
        *,
        name: str = "",
        at: datetime = NOW,
        until: datetime | None = None,
        plan: str = "basic",
        amount: Money = 30,
        subscription: dict[str, Any] | None = None,
        payment: dict[str, Any] | None = None,
        order: dict[str, Any] | None = None,
    ) -> None:
        """Write a clean subscription with its order and payment: `s`, `o` and `p` with the name behind.

        `subscription`, `payment` and `order` change columns of them.
        """
        period = (at, until or at + timedelta(days=30))
        self.customer(customer)
        self.order(f"o{name}", **{"total": amount, "at": at, "customer": customer, "plan": plan, **(order or {})})
        paid: dict[str, Any] = {"amount": amount, "at": at, "order": f"o{name}", "period": period, **(payment or {})}
        self.payment(f"p{name}", **paid)
        self.subscription(
            f"s{name}", customer=customer, plan=plan, order=f"o{name}", **{"period": period, **(subscription or {})}
        )

    def found(self, **choice: Any) -> dict[Found, Finding]:
        """Return the open findings of the merchant."""
        return found(self.shop, merchant_id=self.merchant_id, **choice)

    def compared(self, *, full: bool = True, as_of: datetime | None = NOW) -> set[Found]:
        """Check the merchant and return what is open: class, object and id."""
        compared(self.shop, full=full, as_of=as_of, merchants=[self.merchant_id])
        return set(self.found())


def compared(
    shop: Shop,
    *,
    full: bool = True,
    as_of: datetime | None = NOW,
    merchants: Sequence[str] | None = None,
    is_failing: bool = False,
) -> dict[str, MerchantComparison]:
    """Check merchants, or all; none may fail unless `is_failing`."""
    done = {one.merchant_id: one for one in check(shop.engine, merchants, is_full=full, as_of=as_of, run_id="test")}
    failures = {name: one.failure for name, one in done.items() if one.failure}
    assert is_failing == bool(failures), failures
    return done


def found(shop: Shop, **choice: Any) -> dict[Found, Finding]:
    """Return the open findings, by class, object and id."""
    return {(one.class_name, one.object_type, one.object_id): one for one in all_found(shop, **choice)}


def all_found(shop: Shop, **choice: Any) -> Sequence[Finding]:
    """Return findings."""
    with reading(shop.engine) as conn:
        return findings.findings(conn, subject=SUBJECT, limit=1_000_000, **choice)


def open_by_merchant(shop: Shop) -> dict[str, set[Found]]:
    """Return what is open at each merchant that has something open, accepted or not."""
    rows = shop.rows(
        "SELECT merchant_id, class, object_type, object_id FROM loyalty.findings "
        "WHERE subject = 'subscriptions' AND closed_at IS NULL"
    )
    result: dict[str, set[Found]] = {}
    for row in rows:
        result.setdefault(row.merchant_id, set()).add((row[1], row.object_type, row.object_id))
    return result


def forget_orders(shop: Shop) -> None:
    """Let the ledger never have heard of the orders that wait for it."""
    shop.run("DELETE FROM loyalty.order_inbox")
