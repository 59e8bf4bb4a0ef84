"""Findings of payments and subscriptions that a person looks at or leaves as they are. Nothing here commits."""

from collections.abc import Sequence

from sqlalchemy import Connection

from loyalty_pipelines.db import findings
from loyalty_pipelines.db.integrity_repairs import ACCEPT
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.findings import Finding, NoSuchFindingError
from loyalty_pipelines.domain.fix_errors import NotAcceptedError
from loyalty_pipelines.domain.subscriptions import CHECK_FAILED, SUBJECT

FINDINGS_OF_OBJECT = load("fix_plans/findings_of_object")
NO_LIMIT = 2**62


def finding(conn: Connection, number: int) -> Finding:
    """Return a finding; raise `NoSuchFindingError` when there is none."""
    found = findings.findings(conn, subject=SUBJECT, number=number, is_closed_too=True)
    if not found:
        raise NoSuchFindingError(number, subject=SUBJECT)
    return found[0]


def of_object(
    conn: Connection,
    *,
    merchant_id: str | None = None,
    object_type: str | None = None,
    object_id: str | None = None,
    limit: int = 100,
) -> Sequence[Finding]:
    """Return what was found of an object or merchant, closed findings too, the newest first."""
    values = {
        "subject": SUBJECT,
        "merchant_id": merchant_id,
        "object_type": object_type,
        "object_id": object_id,
        "row_limit": limit,
    }
    return [Finding(**row) for row in conn.execute(FINDINGS_OF_OBJECT, values).mappings()]


def accept(conn: Connection, number: int, *, reason: str, actor: str) -> Finding:
    """Leave what a finding says as it is: it is open no more, as long as it stays the same.

    Raises `NoSuchFindingError`, and `NotAcceptedError` for what is closed, or says that nothing could be compared.
    """
    found = finding(conn, number)
    if found.closed_at is not None or found.class_name == CHECK_FAILED:
        raise NotAcceptedError(number, is_closed=found.closed_at is not None)
    conn.execute(ACCEPT, {"finding_ids": [number], "reason": reason, "actor": actor})
    return found


def accept_all(conn: Connection, *, merchant_id: str, class_name: str, reason: str, actor: str) -> int:
    """Accept all open findings of a class at a merchant; return how many."""
    found = findings.findings(conn, subject=SUBJECT, merchant_id=merchant_id, classes=[class_name], limit=NO_LIMIT)
    if class_name == CHECK_FAILED and found:
        raise NotAcceptedError(found[0].finding_id, is_closed=False)
    conn.execute(ACCEPT, {"finding_ids": [one.finding_id for one in found], "reason": reason, "actor": actor})
    return len(found)
