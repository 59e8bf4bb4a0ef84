"""The sweep: compares every order of a merchant with the ledger and enqueues what differs."""

from datetime import datetime, timedelta

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db.engine import is_caused_by_a_row
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.awards import DifferenceCount

ENQUEUE_DIFFERENCES = load("sweep/enqueue_differences")
ENQUEUE_GONE = load("sweep/enqueue_gone")
ENQUEUE_EVERY_ORDER = load("sweep/enqueue_every_order")
COUNT_DIFFERENCES = load("sweep/count_differences")


def enqueue_differences(
    conn: Connection,
    merchant_id: str,
    *,
    paid_from: datetime | None = None,
    paid_to: datetime | None = None,
) -> int:
    """Enqueue the merchant's orders paid in [paid_from, paid_to) that the ledger is wrong about; return how many.

    Without an instant that side is open, and orders that were never paid are looked at too. Where one order raises an
    error, all are enqueued: the batches isolate that one.
    """
    period = _range(merchant_id, paid_from, paid_to)
    conn.execute(ENQUEUE_GONE, {"merchant_id": merchant_id})
    try:
        with conn.begin_nested():
            return conn.execute(ENQUEUE_DIFFERENCES, period).rowcount
    except DBAPIError as error:
        if not is_caused_by_a_row(error):
            raise
    return conn.execute(ENQUEUE_EVERY_ORDER, period).rowcount


def count_differences(
    conn: Connection,
    merchant_id: str,
    *,
    paid_from: datetime | None = None,
    paid_to: datetime | None = None,
    untouched_for: timedelta | None = None,
) -> DifferenceCount:
    """Count the orders that a sweep would enqueue, only those untouched for `untouched_for` where it is given."""
    row = conn.execute(
        COUNT_DIFFERENCES, {**_range(merchant_id, paid_from, paid_to), "untouched_for": untouched_for}
    ).one()
    return DifferenceCount(
        merchant_id=merchant_id,
        orders_paid=row.orders_paid,
        points_paid=int(row.points_paid),
        orders_unpaid=row.orders_unpaid,
        points_unpaid=int(row.points_unpaid),
        orders_undecided=row.orders_undecided,
        examples=tuple(row.examples or ()),
    )


def _range(merchant_id: str, paid_from: datetime | None, paid_to: datetime | None) -> dict[str, object]:
    return {"merchant_id": merchant_id, "paid_from": paid_from, "paid_to": paid_to}
