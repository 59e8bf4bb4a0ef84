"""The questions that the expiry checks and operators ask about past runs. Each reads only."""

from collections.abc import Sequence
from dataclasses import fields

from sqlalchemy import Connection

from loyalty_pipelines.db.sources import require_shop
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.expiry import ExpiryPlan, LateMerchant
from loyalty_pipelines.domain.expiry_checks import PastRun, StoppedMerchant, UnwarnedMerchant

STOPPED_MERCHANTS = load("checks/stopped_merchants")
LATE_MERCHANTS = load("checks/late_merchants")
EXPIRED_UNWARNED = load("checks/expired_unwarned")
PAST_RUNS = load("checks/past_runs")


def stopped_merchants(conn: Connection) -> Sequence[StoppedMerchant]:
    """Return the merchants whose plan is stopped and was not let through yet, the one with the most accounts first.

    Raises `NoMappingError` when there is no shop to read.
    """
    require_shop(conn)
    names = [field.name for field in fields(ExpiryPlan)]
    return [
        StoppedMerchant(
            merchant_id=row.merchant_id,
            run_id=row.run_id,
            stopped_at=row.stopped_at,
            plan=ExpiryPlan(**{name: getattr(row, name) for name in names}),
        )
        for row in conn.execute(STOPPED_MERCHANTS)
    ]


def late_merchants(conn: Connection, *, hours: int) -> Sequence[LateMerchant]:
    """Return the merchants whose points expire and whose expiry has not succeeded for `hours`, the latest first.

    Raises `NoMappingError` when there is no shop to read.
    """
    require_shop(conn)
    return [LateMerchant(**row) for row in conn.execute(LATE_MERCHANTS, {"hours": hours}).mappings()]


def expired_unwarned(conn: Connection, *, days: int) -> Sequence[UnwarnedMerchant]:
    """Return, per merchant, what expired in the last `days` without a delivered warning and was not given back.

    Merchants with customers whom no mail reaches are among them, too.
    """
    return [
        UnwarnedMerchant(**{**row, "points": int(row["points"])})
        for row in conn.execute(EXPIRED_UNWARNED, {"days": days}).mappings()
    ]


def past_runs(conn: Connection, merchant_id: str | None = None, *, limit: int) -> Sequence[PastRun]:
    """Return the newest runs of a merchant; of all, each with the sums over its merchants."""
    return [
        PastRun(
            **{
                **row,
                "merchant_id": merchant_id,
                "points_expired": int(row["points_expired"]),
                "points_undone": int(row["points_undone"]),
            }
        )
        for row in conn.execute(PAST_RUNS, {"merchant_id": merchant_id, "row_limit": limit}).mappings()
    ]
