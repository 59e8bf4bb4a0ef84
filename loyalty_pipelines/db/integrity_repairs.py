"""Repairs of accounts whose columns drifted from an intact ledger. Functions take a connection and never commit."""

import json
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection

from loyalty_pipelines.db import findings
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.findings import Finding, NoSuchFindingError
from loyalty_pipelines.domain.integrity import CHECK_FAILED, REPAIRABLE, SUBJECT
from loyalty_pipelines.domain.integrity_repairs import (
    NoSuchRepairError,
    NotAcceptableError,
    Repair,
    RepairPlan,
    RepairUndoneError,
)

REPAIRABLE_ACCOUNTS = load("integrity/repairable")
LOCK_ACCOUNT = load("integrity/lock_account")
REPAIR = load("integrity/repair")
LOCK_REPAIR = load("integrity/lock_repair")
UNDO_REPAIR = load("integrity/undo_repair")
REPAIRS = load("integrity/repairs")
ACCEPT = load("integrity/accept")
HAS_RECORDS = load("integrity/has_records")
NO_LIMIT = 2**62

NOT_INTACT = "its entries don't continue each other, or are not those that were sealed: the ledger has no one answer"
NEEDS_TRUST = (
    "entries that no proof has sealed don't continue those before: look at them, and if they are right, "
    "--trust-entries repairs it"
)
NOTHING_LEFT = "its columns are what its ledger says by now"


def plans(
    conn: Connection, *, merchant_id: str | None = None, account_id: int | None = None, is_trusting: bool = False
) -> Sequence[RepairPlan]:
    """Return what could be repaired: accounts with an open finding that an intact ledger settles.

    `is_trusting`: somebody says that entries which no proof has sealed are right, written on a drifted balance.
    """
    values = {"classes": list(REPAIRABLE), "merchant_id": merchant_id, "account_id": account_id}
    return [
        RepairPlan(
            merchant_id=row.merchant_id,
            account_id=row.account_id,
            customer_id=row.customer_id,
            first_seq=row.first_seq,
            last_seq=row.last_seq,
            before=row.before,
            after=row.after,
            is_trusting=is_trusting,
            refusal=_refusal(
                is_intact=row.is_intact,
                is_trusted=is_trusting or not row.is_trust_needed,
                is_changed=row.before != row.after,
            ),
        )
        for row in conn.execute(REPAIRABLE_ACCOUNTS, values)
    ]


def repair(conn: Connection, plan: RepairPlan, *, reason: str, actor: str) -> tuple[RepairPlan, int | None]:
    """Repair one account as its ledger says under its lock, whatever the plan said; return that plan and its number.

    The number is None where nothing was repaired: the plan returned says why.
    """
    key = {"merchant_id": plan.merchant_id, "account_id": plan.account_id}
    conn.execute(LOCK_ACCOUNT, key)
    current = plans(conn, **key, is_trusting=plan.is_trusting)
    if not current or current[0].refusal:
        return (current[0] if current else plan), None
    (found,) = current
    values = {
        "first_seq": found.first_seq,
        "last_seq": found.last_seq,
        "before": json.dumps(dict(found.before)),
        "after": json.dumps(dict(found.after)),
    }
    return found, conn.execute(REPAIR, {**key, **values, "reason": reason, "actor": actor}).scalar_one()


def undo(conn: Connection, number: int, *, actor: str) -> Repair:
    """Take back what a repair changed, as far as that can be; raise when there is none or it was undone."""
    row = conn.execute(LOCK_REPAIR, {"repair_id": number}).mappings().one_or_none()
    if row is None:
        raise NoSuchRepairError(number)
    made = Repair(**row)
    if made.undone_by is not None and made.undone_at is not None:
        raise RepairUndoneError(number, by=made.undone_by, at=made.undone_at)
    conn.execute(LOCK_ACCOUNT, {"merchant_id": made.merchant_id, "account_id": made.account_id})
    undone = conn.execute(UNDO_REPAIR, {"repair_id": number, "actor": actor}).mappings().one()
    return replace(made, **undone)


def repairs(conn: Connection, *, merchant_id: str | None = None, limit: int = 100) -> Sequence[Repair]:
    """Return the newest repairs."""
    values = {"merchant_id": merchant_id, "row_limit": limit}
    return [Repair(**row) for row in conn.execute(REPAIRS, values).mappings()]


def accept(conn: Connection, number: int, *, reason: str, actor: str) -> Finding:
    """Leave what a finding says as it is: it turns no check red any more, as long as it stays the same.

    Raises `NoSuchFindingError`, and `NotAcceptableError` for what is closed or can be put right.
    """
    found = findings.findings(conn, subject=SUBJECT, number=number, is_closed_too=True)
    if not found:
        raise NoSuchFindingError(number)
    (one,) = found
    account_id = int(one.object_id) if one.class_name in REPAIRABLE else None
    is_open = one.closed_at is None
    if not is_open or (one.accepted_at is None and not _acceptable(conn, found, account_id=account_id)):
        raise NotAcceptableError(number, class_name=one.class_name, is_closed=not is_open)
    conn.execute(ACCEPT, {"finding_ids": [number], "reason": reason, "actor": actor})
    return one


def accept_all(conn: Connection, *, merchant_id: str, class_name: str, reason: str, actor: str) -> tuple[int, int]:
    """Accept all open findings of a class at a merchant; return how many, and of how many `accept` would refuse."""
    found = findings.findings(conn, subject=SUBJECT, merchant_id=merchant_id, classes=[class_name], limit=NO_LIMIT)
    chosen = _acceptable(conn, found)
    conn.execute(ACCEPT, {"finding_ids": chosen, "reason": reason, "actor": actor})
    return len(chosen), len(found) - len(chosen)


def _acceptable(conn: Connection, found: Sequence[Finding], *, account_id: int | None = None) -> list[int]:
    """Return the numbers of those (all of one merchant) that nothing can put right, no ledger that is intact either."""
    beyond_repair: set[str] = set()
    if any(one.class_name in REPAIRABLE for one in found):
        planned = plans(conn, merchant_id=found[0].merchant_id, account_id=account_id)
        beyond_repair = {str(plan.account_id) for plan in planned if plan.refusal == NOT_INTACT}
    return [
        one.finding_id
        for one in found
        if one.class_name != CHECK_FAILED and (one.class_name not in REPAIRABLE or one.object_id in beyond_repair)
    ]


def has_records(conn: Connection, merchant_id: str) -> bool:
    """Return whether a merchant has, or had, a finding, a repair or a proof."""
    return conn.execute(HAS_RECORDS, {"merchant_id": merchant_id}).scalar_one()


def _refusal(*, is_intact: bool, is_trusted: bool, is_changed: bool) -> str | None:
    if not is_intact:
        return NOT_INTACT
    if not is_trusted:
        return NEEDS_TRUST
    return None if is_changed else NOTHING_LEFT
