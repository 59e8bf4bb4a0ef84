"""The questions that the award checks ask. Each reads only."""

from collections.abc import Sequence

from sqlalchemy import Connection

from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.checks import MissingOrders, WaitingOrders

WAITING_ORDERS = load("checks/waiting_orders")
MISSING_ORDERS = load("checks/missing_orders")


def waiting_orders(conn: Connection, *, limit: int = 1000) -> Sequence[WaitingOrders]:
    """Return the merchants with orders in the inbox, the one that waits longest first."""
    return [
        WaitingOrders(**{**row, "oldest_seconds": float(row["oldest_seconds"])})
        for row in conn.execute(WAITING_ORDERS, {"row_limit": limit}).mappings()
    ]


def missing_orders(conn: Connection, *, hours: int) -> Sequence[MissingOrders]:
    """Return, per merchant, how many orders were looked at in the last `hours` and how many were gone."""
    return [
        MissingOrders(merchant_id=row.merchant_id, orders=int(row.orders), orders_missing=int(row.orders_missing))
        for row in conn.execute(MISSING_ORDERS, {"hours": hours})
    ]
