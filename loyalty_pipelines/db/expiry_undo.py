"""Giving back what an expiry run took, page by page; the caller commits each page."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from loyalty_pipelines.db.awards import lock_merchant
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.expiry_undo import RunNotFoundError, Undo, UndoneMerchant

RUNS = load("expiry_undo/runs")
RECENT_RUNS = load("expiry_undo/recent_runs")
TAKEN_PAGE = load("expiry_undo/taken_page")
UNDO_PAGE = load("expiry_undo/undo_page")
ADD_TO_RUN = load("expiry_undo/add_to_run")


@dataclass(frozen=True, kw_only=True)
class RunOfMerchant:
    """A merchant's part of a run; what is given back lasts at least until `least_expires_at` (None: for ever).

    While the programme is off the date means nothing; all are computed anew when it is on again.
    """

    merchant_id: str
    accounts_expired: int
    points_expired: int
    timezone: str
    is_program_active: bool
    least_expires_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Taken:
    """An entry of kind 'expired'."""

    account_id: int
    seq: int
    points: int
    is_undone: bool


def runs(conn: Connection, undo: Undo) -> list[RunOfMerchant]:
    """Return the merchants of the run; raise `RunNotFoundError` when there is none."""
    found = [RunOfMerchant(**row._mapping) for row in conn.execute(RUNS, {"run_id": undo.run_id})]
    wanted = [one for one in found if undo.merchant_id in (None, one.merchant_id)]
    if not wanted:
        recent = list(conn.execute(RECENT_RUNS).scalars())
        raise RunNotFoundError(run_id=undo.run_id, merchant_id=undo.merchant_id, recent=recent)
    return wanted


def taken_page(conn: Connection, merchant_id: str, undo: Undo, *, after: Taken | None, page_size: int) -> list[Taken]:
    """Return a page of what the run took from the merchant's accounts, in key order."""
    rows = conn.execute(
        TAKEN_PAGE,
        {
            "merchant_id": merchant_id,
            "run_id": undo.run_id,
            "customer_id": undo.customer_id,
            "after_account_id": after.account_id if after else 0,
            "after_seq": after.seq if after else 0,
            "page_size": page_size,
        },
    )
    return [Taken(**row._mapping) for row in rows]


def undo_page(conn: Connection, run: RunOfMerchant, undo: Undo, taken: Sequence[Taken]) -> UndoneMerchant:
    """Give back what these entries took, once each, and count it into the run."""
    lock_merchant(conn, run.merchant_id)
    row = conn.execute(
        UNDO_PAGE,
        {
            "merchant_id": run.merchant_id,
            "account_ids": [one.account_id for one in taken],
            "seqs": [one.seq for one in taken],
            "least_expires_at": run.least_expires_at,
            "timezone": run.timezone,
            # Behind a programme that is off there is no date to tell.
            "is_mailed": undo.is_mailed and run.is_program_active,
            "reason": f"expiry run {undo.run_id} undone: {undo.reason}",
            "actor": undo.actor,
            "run_id": undo.run_id,
        },
    ).one()
    points = int(row.points)
    conn.execute(
        ADD_TO_RUN,
        {"merchant_id": run.merchant_id, "run_id": undo.run_id, "accounts": row.accounts, "points": points},
    )
    return UndoneMerchant(
        merchant_id=run.merchant_id, accounts=row.accounts, points=points, accounts_before=len(taken) - row.accounts
    )
