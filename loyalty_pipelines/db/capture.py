"""How changed orders get into the inbox where triggers can't bring them, and whether any are there."""

from datetime import timedelta

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db.engine import is_caused_by_a_row
from loyalty_pipelines.db.statements import load

POLL = load("capture/poll")
POLL_EVERYTHING = load("capture/poll_everything")
POLL_CURSOR = load("capture/poll_cursor")
MOVE_POLL_CURSOR = load("capture/move_poll_cursor")
PENDING = load("capture/pending")


def poll(conn: Connection, *, overlap: timedelta) -> int:
    """Enqueue what the shop changed since the last poll less `overlap`; return how many orders.

    The first poll reads from now; older orders are the sweep's. A row that commits later than the
    overlap with an earlier `updated_at` is missed here and found by the sweep. The caller commits.
    """
    since = conn.execute(POLL_CURSOR).scalar_one() - overlap
    try:
        with conn.begin_nested():
            enqueued = conn.execute(POLL, {"since": since}).rowcount
    except DBAPIError as error:
        if not is_caused_by_a_row(error):
            raise
        # One order would keep all others from being found: the batches isolate it.
        enqueued = conn.execute(POLL_EVERYTHING, {"since": since}).rowcount
    conn.execute(MOVE_POLL_CURSOR)
    return enqueued


def is_pending(conn: Connection) -> bool:
    """Return whether any order waits in the inbox."""
    return conn.execute(PENDING).scalar_one()
