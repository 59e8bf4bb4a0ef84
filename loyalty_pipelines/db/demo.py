"""The demo's shop: its merchants, orders and subscriptions, and what happens to them while the pipelines run."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from loyalty_pipelines.db import sample_shop, sources
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.errors import ConfigurationError

MERCHANTS = load("demo/merchants")
PROGRAMS = load("demo/programs")
ORDERS = load("demo/orders")
COUNT_ORDERS = load("demo/count_orders")
LATE_PAYMENTS = load("demo/late_payments")
CANCELLATIONS = load("demo/cancellations")
REFUNDS = load("demo/refunds")
CUSTOMERS = load("demo/customers")
MAILS = load("demo/mails")
SUMMARY = load("demo/summary")
PLANS = load("demo/plans")
SUBSCRIPTIONS = [load(f"demo/{name}") for name in ("subscriptions", "payments", "mismatches")]
PLAN_ORDERS = load("demo/plan_orders")
# What the comparison finds in six of the demo's subscriptions, one each; demo/mismatches makes them. The one that was
# made twice is found twice, because nobody paid for it.
MISMATCHES = (
    "paid_without_subscription",
    "subscription_without_payment",
    "duplicate_same_plan",
    "duplicate_other_plan",
    "captured_twice",
    "currency_differs",
    "refunded_but_active",
)


@dataclass(frozen=True, kw_only=True)
class DemoMerchant:
    """One row of the demo's closing table."""

    merchant_id: str
    timezone: str
    currency: str
    orders: int
    paid_orders: int
    accounts: int
    points: int
    waiting: int


def prepare(conn: Connection, *, merchants: int, is_allowed: bool = True) -> None:
    """Create the sample shop with its merchants and programmes where they are missing; only there unless allowed.

    Raises `ConfigurationError` when the database reads another shop: the demo would write orders nobody reads.
    """
    mapping = sources.current(conn)
    is_ours = mapping is None or sample_shop.is_older(mapping) or mapping.yaml_text == sample_shop.mapping().yaml_text
    if not is_ours:
        raise ConfigurationError(
            "This database reads a shop of its own (see 'loyalty sources show'), and the demo would mix made-up "
            "orders into it. Unset LOYALTY_DATABASE_URL, or set LOYALTY_HOME to an empty folder, and try again."
        )
    if mapping is None and not is_allowed:
        raise ConfigurationError(
            "LOYALTY_DATABASE_URL is set, and the demo's ledger entries could never be removed from that database: "
            "unset it to use a private one, or add --into-this-database."
        )
    sample_shop.create(conn)
    conn.execute(MERCHANTS, {"merchants": merchants})
    conn.execute(PROGRAMS)


def add_orders(conn: Connection, *, orders: int, merchants: int) -> int:
    """Add `orders` orders of the first `merchants` merchants, and their customers; return how many orders."""
    first = 1 + conn.execute(COUNT_ORDERS).scalar_one()
    added = conn.execute(ORDERS, {"orders": orders, "merchants": merchants, "first": first}).rowcount
    conn.execute(CUSTOMERS)
    return added


def add_subscriptions(conn: Connection, *, merchants: int) -> int:
    """Add subscriptions with orders and payments, six of them wrong, unless they are there; return how many orders."""
    conn.execute(PLANS, {"merchants": merchants})
    added = conn.execute(PLAN_ORDERS, {"merchants": merchants}).rowcount
    if added:
        for statement in SUBSCRIPTIONS:
            conn.execute(statement)
        conn.execute(CUSTOMERS)
    return added


def late_payments(conn: Connection, *, digit: int) -> int:
    """Pay the pending orders whose number ends with `digit`; return how many."""
    return conn.execute(LATE_PAYMENTS, {"digit": str(digit)}).rowcount


def cancellations_and_refunds(conn: Connection) -> tuple[int, int]:
    """Cancel and partly refund some paid orders; return how many of each."""
    return conn.execute(CANCELLATIONS).rowcount, conn.execute(REFUNDS).rowcount


def mails(conn: Connection) -> tuple[int, int]:
    """Return how many mails wait, and how many were sent."""
    row = conn.execute(MAILS).one()
    return row.waiting, row.sent


def summary(conn: Connection) -> Sequence[DemoMerchant]:
    """Return the closing table's rows."""
    return [DemoMerchant(**{**row, "points": int(row["points"])}) for row in conn.execute(SUMMARY).mappings()]
