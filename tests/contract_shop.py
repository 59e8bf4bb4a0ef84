"""A shop whose tables refuse nothing, all seven relations mapped: clean, or with bad rows for each expectation."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from loyalty_pipelines.db import sources
from loyalty_pipelines.domain.source_mapping import parse_mapping

# A Wednesday; the weekdays that the volume looks at are Tuesdays.
AS_OF = datetime(2026, 1, 28, 12, tzinfo=UTC)

TABLES = """
CREATE SCHEMA odd;
CREATE TABLE odd.merchants (id text, name text, timezone text, currency text);
CREATE TABLE odd.customers (merchant_id text, id text, email text, name text, created_at timestamptz);
CREATE TABLE odd.orders (merchant_id text, id text, customer_id text, total numeric, redeemed numeric, currency text,
    status text, paid_at timestamptz, updated_at timestamptz);
CREATE TABLE odd.refunds (merchant_id text, id text, order_id text, amount numeric, refunded_at timestamptz);
CREATE TABLE odd.payments (merchant_id text, id text, order_id text, subscription_id text, customer_id text,
    amount numeric, refunded numeric, currency text, status text, captured_at timestamptz,
    period_start timestamptz, period_end timestamptz);
CREATE TABLE odd.subscriptions (merchant_id text, id text, customer_id text, plan_id text, status text, amount numeric,
    currency text, starts_at timestamptz, ends_at timestamptz, created_at timestamptz, cancelled_at timestamptz,
    order_id text);
CREATE TABLE odd.plans (merchant_id text, id text, name text, amount numeric, currency text, "interval" text);
INSERT INTO odd.merchants VALUES ('m1', 'One', 'Europe/Luxembourg', 'EUR');
INSERT INTO odd.merchants VALUES ('m2', 'Two', 'europe/luxembourg', 'EUR');
INSERT INTO odd.customers VALUES ('m1', 'ann', 'ann@example.com', 'Ann Example', '2025-01-01Z');
INSERT INTO odd.plans VALUES ('m1', 'gold', 'Gold', 10, 'EUR', 'month');
INSERT INTO odd.orders
VALUES ('m1', '1', 'ann', 10, 0, 'EUR', 'paid', '2026-01-20Z', '2026-01-20Z'),
    ('m1', '2', NULL, 0, 0, 'EUR', 'pending', NULL, '2026-01-20Z');
INSERT INTO odd.refunds VALUES ('m1', 'r1', '1', 1, '2026-01-21Z');
INSERT INTO odd.subscriptions
VALUES ('m1', 's1', 'ann', 'gold', 'active', NULL, NULL, '2026-01-01Z', '2026-02-01Z', '2025-12-01Z');
INSERT INTO odd.payments
VALUES ('m1', 'p1', '1', 's1', 'ann', 10, 0, 'EUR', 'captured', '2026-01-20Z'),
    ('m1', 'p2', NULL, NULL, NULL, 10, 0, 'EUR', 'failed', NULL)
"""

MAPPING = """
version: 1
capture: poll
merchants:
  relation: odd.merchants
  columns: {merchant_id: id, name: name, timezone: timezone, currency: currency}
customers:
  relation: odd.customers
  columns: {merchant_id: merchant_id, customer_id: id, email: email, name: name, created_at: created_at}
orders:
  relation: odd.orders
  columns: {merchant_id: merchant_id, order_id: id, customer_id: customer_id, total_amount: total, currency: currency,
    points_redeemed: redeemed, status: status, paid_at: paid_at, updated_at: updated_at}
  status: {pending: pending, paid: paid, refunded: refunded}
refunds:
  relation: odd.refunds
  columns: {merchant_id: merchant_id, refund_id: id, order_id: order_id, amount: amount, refunded_at: refunded_at}
payments:
  relation: odd.payments
  columns: {merchant_id: merchant_id, payment_id: id, order_id: order_id, subscription_id: subscription_id,
    customer_id: customer_id, amount: amount, refunded_amount: refunded, currency: currency, status: status,
    captured_at: captured_at, period_start: period_start, period_end: period_end}
  status: {captured: captured, failed: failed}
subscriptions:
  relation: odd.subscriptions
  columns: {merchant_id: merchant_id, subscription_id: id, customer_id: customer_id, plan_id: plan_id, status: status,
    amount: amount, currency: currency, current_period_start: starts_at, current_period_end: ends_at,
    created_at: created_at, cancelled_at: cancelled_at, order_id: order_id}
  status: {active: active}
plans:
  relation: odd.plans
  columns: {merchant_id: merchant_id, plan_id: id, name: name, amount: amount, currency: currency, interval: interval}
"""

GOOD: dict[str, dict[str, Any]] = {
    "merchants": {"id": "", "name": "X", "timezone": "UTC", "currency": "EUR"},
    "customers": {"merchant_id": "m1", "id": "", "email": "x@example.com", "name": "X", "created_at": "2025-01-01Z"},
    "orders": {"merchant_id": "m1", "id": "", "customer_id": "ann", "total": "10", "redeemed": "0", "currency": "EUR",
               "status": "paid", "paid_at": "2026-01-20Z", "updated_at": "2026-01-20Z"},
    "refunds": {"merchant_id": "m1", "id": "", "order_id": "1", "amount": "1", "refunded_at": "2026-01-21Z"},
    "payments": {"merchant_id": "m1", "id": "", "order_id": "1", "subscription_id": "s1", "customer_id": "ann",
                 "amount": "10", "refunded": "0", "currency": "EUR", "status": "captured",
                 "captured_at": "2026-01-20Z", "period_start": "2026-01-01Z", "period_end": "2026-02-01Z"},
    "subscriptions": {"merchant_id": "m1", "id": "", "customer_id": "ann", "plan_id": "gold", "status": "active",
                      "amount": "10", "currency": "EUR", "starts_at": "2026-01-01Z", "ends_at": "2026-02-01Z",
                      "created_at": "2025-12-01Z", "cancelled_at": "2026-02-01Z", "order_id": "1"},
    "plans": {"merchant_id": "m1", "id": "", "name": "X", "amount": "10", "currency": "EUR", "interval": "month"},
}  # fmt: skip

# What the engine awards is no error: it takes amounts to 10^12.
LARGEST = "1000000000000"
IMPLAUSIBLE = ("NaN", "Infinity", "-Infinity", "-0.01", f"{LARGEST}.01", "1e400")
LATER = "2026-01-29 12:00:01Z"
IN_TEN_YEARS = "2036-02-01Z"


@dataclass(frozen=True, kw_only=True)
class Planted:
    """Bad rows of one expectation: what differs from a good row, each with an id of its own unless it has one."""

    rows: tuple[Mapping[str, Any], ...]

    @property
    def count(self) -> int:
        return len(self.rows)


def _one(**columns: Any) -> Planted:
    return Planted(rows=(columns,))


def _amounts(column: str) -> Planted:
    return Planted(rows=tuple({column: amount} for amount in IMPLAUSIBLE))


_TWICE = Planted(rows=({"id": "twin"}, {"id": "twin"}))
_NO_ID = _one(id="")
_STRANGER = _one(merchant_id="nobody")

PLANTED: dict[tuple[str, str], Planted] = {
    ("merchants", "no_merchant_is_there_twice"): _TWICE,
    ("merchants", "every_merchant_has_an_id"): _NO_ID,
    ("merchants", "every_merchant_has_a_currency"): _one(currency=None),
    ("merchants", "every_currency_of_a_merchant_is_a_code"): Planted(rows=({"currency": "EURO"}, {"currency": "€"})),
    ("merchants", "every_merchant_has_a_known_time_zone"): Planted(
        # PostgreSQL takes the second, and means three hours west by it.
        rows=({"timezone": "Mars/Olympus"}, {"timezone": "UTC+3"}, {"timezone": None})
    ),
    ("customers", "no_customer_is_there_twice"): _TWICE,
    ("customers", "every_customer_has_an_id"): _NO_ID,
    ("customers", "every_customer_belongs_to_a_merchant"): _STRANGER,
    ("customers", "every_customer_has_a_time_of_creation"): _one(created_at=None),
    ("customers", "no_customer_is_from_the_future"): _one(created_at=LATER),
    ("orders", "no_order_is_there_twice"): _TWICE,
    ("orders", "every_order_has_an_id"): _NO_ID,
    ("orders", "every_order_has_a_known_status"): Planted(rows=({"status": "odd"}, {"status": None})),
    ("orders", "every_amount_of_an_order_is_plausible"): _amounts("total"),
    ("orders", "no_amount_of_an_order_is_above_a_billion"): Planted(
        rows=({"total": "1000000000.01"}, {"total": LARGEST})
    ),
    ("orders", "every_number_of_redeemed_points_is_plausible"): Planted(
        rows=({"redeemed": "-1"}, {"redeemed": "2000000001"})
    ),
    ("orders", "every_order_has_a_currency"): _one(currency=" "),
    ("orders", "every_currency_of_an_order_is_a_code"): _one(currency="E"),
    ("orders", "every_paid_order_has_a_time_of_payment"): Planted(
        rows=({"paid_at": None}, {"paid_at": None, "status": "refunded"})
    ),
    ("orders", "every_order_has_a_time_of_change"): _one(updated_at=None),
    ("orders", "no_order_was_paid_in_the_future"): _one(paid_at=LATER),
    ("orders", "no_order_was_changed_in_the_future"): _one(updated_at=LATER),
    ("orders", "every_order_belongs_to_a_merchant"): _one(merchant_id="nobody", customer_id=None),
    ("orders", "every_order_belongs_to_a_known_customer"): _one(customer_id="bob"),
    ("refunds", "no_refund_is_there_twice"): _TWICE,
    ("refunds", "every_refund_has_an_id"): _NO_ID,
    ("refunds", "every_amount_of_a_refund_is_plausible"): _amounts("amount"),
    ("refunds", "every_refund_has_a_time"): _one(refunded_at=None),
    ("refunds", "no_refund_is_from_the_future"): _one(refunded_at=LATER),
    ("refunds", "every_refund_belongs_to_an_order"): Planted(rows=({"order_id": "none"}, {"merchant_id": "nobody"})),
    ("payments", "no_payment_is_there_twice"): _TWICE,
    ("payments", "every_payment_has_an_id"): _NO_ID,
    ("payments", "every_payment_has_a_known_status"): _one(status="odd"),
    ("payments", "every_amount_of_a_payment_is_plausible"): _amounts("amount"),
    ("payments", "every_refunded_amount_is_plausible"): _one(refunded="-1"),
    ("payments", "every_payment_has_a_currency"): _one(currency=None),
    ("payments", "every_currency_of_a_payment_is_a_code"): _one(currency="EURO"),
    ("payments", "every_captured_payment_has_a_time"): _one(captured_at=None),
    ("payments", "no_payment_is_from_the_future"): _one(captured_at=LATER),
    ("payments", "no_paid_period_ends_before_it_begins"): _one(period_end="2025-12-31Z"),
    ("payments", "no_paid_period_is_in_the_far_future"): Planted(
        rows=({"period_end": IN_TEN_YEARS}, {"period_start": IN_TEN_YEARS, "period_end": None})
    ),
    ("payments", "every_payment_belongs_to_a_merchant"): _one(
        merchant_id="nobody", order_id=None, subscription_id=None, customer_id=None
    ),
    ("payments", "every_payment_of_an_order_has_its_order"): _one(order_id="none"),
    ("payments", "every_payment_of_a_subscription_has_its_subscription"): _one(subscription_id="none"),
    ("payments", "every_payment_belongs_to_a_known_customer"): _one(customer_id="bob"),
    ("subscriptions", "no_subscription_is_there_twice"): _TWICE,
    ("subscriptions", "every_subscription_has_an_id"): _NO_ID,
    ("subscriptions", "every_subscription_has_a_known_status"): _one(status="odd"),
    ("subscriptions", "every_amount_of_a_subscription_is_plausible"): _amounts("amount"),
    ("subscriptions", "every_amount_of_a_subscription_has_a_currency"): _one(currency=None),
    ("subscriptions", "every_currency_of_a_subscription_is_a_code"): _one(currency="EURO"),
    ("subscriptions", "every_subscription_has_a_time_of_creation"): _one(created_at=None),
    ("subscriptions", "no_subscription_is_from_the_future"): _one(created_at=LATER),
    ("subscriptions", "no_period_ends_before_it_begins"): _one(ends_at="2025-12-31Z"),
    ("subscriptions", "no_period_ends_in_the_far_future"): _one(ends_at=IN_TEN_YEARS),
    ("subscriptions", "no_cancellation_is_in_the_far_future"): _one(cancelled_at=IN_TEN_YEARS),
    # Its customer and plan are those of the same merchant that are planted above and below.
    ("subscriptions", "every_subscription_belongs_to_a_merchant"): _one(
        merchant_id="nobody",
        customer_id="every_customer_belongs_to_a_merchant 0",
        plan_id="every_plan_belongs_to_a_merchant 0",
        order_id=None,
    ),
    ("subscriptions", "every_subscription_has_a_customer"): _one(customer_id=None),
    ("subscriptions", "every_subscription_belongs_to_a_known_customer"): _one(customer_id="bob"),
    ("subscriptions", "every_order_of_a_subscription_is_there"): _one(order_id="none"),
    ("subscriptions", "every_subscription_has_its_plan"): Planted(rows=({"plan_id": "none"}, {"plan_id": None})),
    ("plans", "no_plan_is_there_twice"): _TWICE,
    ("plans", "every_plan_has_an_id"): _NO_ID,
    ("plans", "every_amount_of_a_plan_is_plausible"): _amounts("amount"),
    ("plans", "every_plan_has_a_currency"): _one(currency=None),
    ("plans", "every_currency_of_a_plan_is_a_code"): _one(currency="EURO"),
    ("plans", "every_plan_has_an_interval"): _one(interval=None),
    ("plans", "every_plan_belongs_to_a_merchant"): _STRANGER,
}  # fmt: skip


def create(conn: Connection) -> None:
    """Make the clean shop and map it; the caller commits."""
    for statement in TABLES.split(";\n"):
        conn.exec_driver_sql(statement)
    sources.apply(conn, parse_mapping(MAPPING))


def plant(conn: Connection) -> dict[tuple[str, str], set[tuple[str, str]]]:
    """Write every bad row; return merchant and id of those of each expectation."""
    planted: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for (view, name), bad in PLANTED.items():
        keys = planted.setdefault((view, name), set())
        for number, columns in enumerate(bad.rows):
            row = {**GOOD[view], "id": f"{name} {number}", **columns}
            insert(conn, view, row)
            keys.add((row.get("merchant_id", row["id"]), row["id"]))
    return planted


def insert(conn: Connection, table: str, row: Mapping[str, Any]) -> None:
    """Write one row."""
    columns, places = ", ".join(f'"{name}"' for name in row), ", ".join(["%s"] * len(row))
    conn.exec_driver_sql(f"INSERT INTO odd.{table} ({columns}) VALUES ({places})", tuple(row.values()))


def orders_of_day(conn: Connection, merchant_id: str, day: str, count: int) -> None:
    """Write good orders of a merchant on a day in UTC, from its first instant to its last."""
    conn.exec_driver_sql(
        "INSERT INTO odd.orders SELECT %s, %s || ' ' || n, NULL, 1, 0, 'EUR', 'paid', at, at FROM (SELECT n, "
        "CAST(%s AS timestamptz) + (n - 1) * interval '86399.999999 seconds' / greatest(%s - 1, 1) AS at "
        "FROM generate_series(1, %s) AS n) AS o",
        (merchant_id, day, f"{day}Z", count, count),
    )
