"""The questions that schedules and checks ask about the comparison of payments and subscriptions. Each reads only."""

from collections.abc import Sequence

from sqlalchemy import Connection

from loyalty_pipelines.db import sources
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain import subscriptions
from loyalty_pipelines.domain.source_mapping import CaptureMode
from loyalty_pipelines.domain.subscriptions import JOB, NOT_MAPPED, SUBJECT, UncomparedMerchant

IS_ANYTHING_DUE = load("subscriptions/is_anything_due")
UNCOMPARED = load("subscriptions/uncompared")
NOTHING_DUE = "Nothing changed since the last comparison, and nothing is due for a look."


def is_mapped(conn: Connection) -> bool:
    """Whether the mapping in force has anything to compare; raise `NoMappingError` where there is no shop to read."""
    return subscriptions.is_mapped(sources.require_mapping(conn))


def why_not_compared(conn: Connection, *, is_full: bool) -> str | None:
    """Return why a comparison would find nothing new, or None: one is due; raises as `is_mapped` does.

    With triggers, what the shop changed is noted; where it is polled, nobody knows before it was looked.
    """
    mapping = sources.require_mapping(conn)
    if not subscriptions.is_mapped(mapping):
        return NOT_MAPPED
    if is_full or mapping.capture is CaptureMode.POLL or conn.execute(IS_ANYTHING_DUE).scalar_one():
        return None
    return NOTHING_DUE


def uncompared(conn: Connection, *, hours: int) -> Sequence[UncomparedMerchant]:
    """Return merchants that were not compared in full within so many hours, or whose last comparison failed."""
    values = {"hours": hours, "subject": SUBJECT, "job": JOB}
    return [UncomparedMerchant(**row) for row in conn.execute(UNCOMPARED, values).mappings()]
