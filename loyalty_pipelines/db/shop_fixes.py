"""Reads, locks and puts back the shop's subscriptions, and calls its functions, as far as the mapping's `fixes` allow.

`fix_batch` makes and changes them, many at once.

Raw rows are the shop's own values under our names of the columns, as the text of a jsonb: Python's numbers would lose
digits. `CAST(:row AS jsonb)` stores one, `CAST(row_before AS text)` reads it back. Nothing here commits.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from psycopg import sql
from sqlalchemy import Connection

from loyalty_pipelines.db import sources
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.source_mapping import FunctionName

SUBSCRIPTION_ROW = load("fixes/subscription_row")
PAYMENT_ROW = load("fixes/payment_row")
LOCK_SUBSCRIPTION = load("fixes/lock_subscription")
RESTORE_SUBSCRIPTION = load("fixes/restore_subscription")
REMOVE_SUBSCRIPTION = load("fixes/remove_subscription")
LOCK_SUBSCRIPTIONS = load("fixes/lock_subscriptions")
LOCK_ORDERS = load("fixes/lock_orders")
IS_SUBSCRIPTION_PAID = load("fixes/is_subscription_paid")
# Who writes the shop's table meanwhile waits behind this lock: better to give up than to hold up a checkout.
LOCK_TIMEOUT = "2s"


def subscription_row(conn: Connection, merchant_id: str, subscription_id: str) -> str | None:
    """Return the shop's own values of a subscription; None when there is none."""
    return conn.execute(SUBSCRIPTION_ROW, {"merchant_id": merchant_id, "subscription_id": subscription_id}).scalar_one()


def payment_row(conn: Connection, merchant_id: str, payment_id: str) -> str | None:
    """Return the shop's own values of a payment; None when there is none."""
    return conn.execute(PAYMENT_ROW, {"merchant_id": merchant_id, "payment_id": payment_id}).scalar_one()


def lock_subscription(conn: Connection, merchant_id: str, subscription_id: str) -> str | None:
    """Return the shop's own values of a subscription and lock its row; None when there is none."""
    return conn.execute(
        LOCK_SUBSCRIPTION, {"merchant_id": merchant_id, "subscription_id": subscription_id}
    ).scalar_one()


def restore_subscription(conn: Connection, merchant_id: str, subscription_id: str, row: str) -> bool:
    """Put back a row exactly as `subscription_row` gave it; False without such a row."""
    values = {"merchant_id": merchant_id, "subscription_id": subscription_id, "raw_row": row}
    return conn.execute(RESTORE_SUBSCRIPTION, values).scalar_one()


def is_subscription_paid(conn: Connection, merchant_id: str, subscription_id: str) -> bool:
    """Return whether a payment names a subscription: removing it would leave money without what it is for."""
    values = {"merchant_id": merchant_id, "subscription_id": subscription_id}
    return conn.execute(IS_SUBSCRIPTION_PAID, values).scalar_one()


def remove_subscription(conn: Connection, merchant_id: str, subscription_id: str) -> bool:
    """Delete a subscription; False when there is none."""
    return conn.execute(
        REMOVE_SUBSCRIPTION, {"merchant_id": merchant_id, "subscription_id": subscription_id}
    ).scalar_one()


def call_function(conn: Connection, name: FunctionName, plan: dict[str, Any]) -> str | None:
    """Call a function of the shop with `plan` as jsonb and return its text."""
    call = sql.SQL("SELECT {}(CAST({} AS jsonb))").format(
        sql.Identifier(name.schema_name, name.name), sql.Literal(json.dumps(plan, default=str))
    )
    statement = call.as_string(conn.connection.driver_connection)  # type: ignore[arg-type]
    # Without parameters, so that a percent sign in a name stays one.
    return conn.exec_driver_sql(statement, execution_options={"no_parameters": True}).scalar_one()


def lock_orders(conn: Connection, merchant_id: str, order_ids: Sequence[str]) -> None:
    """Lock orders until the transaction ends, as far as whoever applied the mapping may.

    A shop that locks the order of which it makes a subscription has either made it then, or waits and finds ours. Waits
    2 seconds at most for each; then the driver's lock_not_available is raised, and the caller rolls back.
    """
    with waiting_a_moment(conn):
        conn.execute(LOCK_ORDERS, {"merchant_id": merchant_id, "order_ids": list(order_ids)})


def lock_subscriptions(conn: Connection) -> None:
    """Keep everybody else from writing the shop's subscriptions until the transaction ends.

    Waits 2 seconds at most; then the driver's lock_not_available is raised, and the caller rolls back.
    """
    with waiting_a_moment(conn):
        conn.execute(LOCK_SUBSCRIPTIONS)


@contextmanager
def waiting_a_moment(conn: Connection) -> Iterator[None]:
    """Let each lock of the shop's rows and tables be waited for 2 seconds at most."""
    previous_timeout = conn.execute(sources.GET_LOCK_TIMEOUT).scalar_one()
    conn.execute(sources.SET_LOCK_TIMEOUT, {"lock_timeout": LOCK_TIMEOUT})
    yield
    conn.execute(sources.SET_LOCK_TIMEOUT, {"lock_timeout": previous_timeout})
