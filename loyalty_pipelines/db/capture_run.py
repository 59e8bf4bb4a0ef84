"""The transaction of a sensor's tick: poll where the mapping says so, then look whether anything waits."""

from datetime import datetime, timedelta

from sqlalchemy import Engine

from loyalty_pipelines.db import capture, sources
from loyalty_pipelines.domain.source_mapping import CaptureMode


def look_for_orders(engine: Engine, *, as_of: datetime) -> bool:
    """Return whether orders wait in the inbox; in poll mode, first bring those that changed.

    Raises `NoMappingError` when no source mapping is in force.
    """
    with engine.begin() as conn:
        mapping = sources.require_mapping(conn)
        if mapping.capture is CaptureMode.POLL:
            capture.poll(conn, overlap=timedelta(seconds=mapping.poll_overlap_seconds), first_since=as_of)
        return capture.is_pending(conn)
