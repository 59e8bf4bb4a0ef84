"""The transaction of a sensor's tick: poll where the mapping says so, then look whether anything waits."""

from datetime import timedelta

from sqlalchemy import Connection, Engine

from loyalty_pipelines.db import capture, sources
from loyalty_pipelines.domain.source_mapping import CaptureMode


def look_for_orders(engine: Engine) -> bool:
    """Return whether orders wait in the inbox; in poll mode, first bring those that changed.

    Raises `NoMappingError` when no source mapping is in force.
    """
    with engine.begin() as conn:
        _poll(conn)
        return capture.is_pending(conn)


def count_changed(engine: Engine) -> int:
    """Return how many orders the next poll would bring, and bring none; 0 where triggers bring them.

    Raises `NoMappingError` when no source mapping is in force.
    """
    with engine.connect() as conn, conn.begin() as transaction:
        orders = _poll(conn)
        transaction.rollback()
    return orders


def _poll(conn: Connection) -> int:
    mapping = sources.require_mapping(conn)
    if mapping.capture is not CaptureMode.POLL:
        return 0
    return capture.poll(conn, overlap=timedelta(seconds=mapping.poll_overlap_seconds))
