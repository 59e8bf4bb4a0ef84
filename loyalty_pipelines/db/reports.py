"""What reports read: months of the ledger, balances, redemptions, newest entries; for all merchants in few statements.

The functions of one report are called on one snapshot (`reading(engine, is_one_snapshot=True)`): what is awarded
meanwhile is then in all of its numbers or in none.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TypeVar

from sqlalchemy import Connection

from loyalty_pipelines.db.sources import require_shop
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.activity import ActivityEntry, ActivityReport, RedemptionPeriod, RedemptionReport, Unit
from loyalty_pipelines.domain.liability import (
    BREAKAGE_MONTHS,
    CALENDAR_MONTHS,
    BalanceBucket,
    LiabilityReport,
    Movement,
    ReportedMerchant,
    UnknownKindError,
    liability_of,
)
from loyalty_pipelines.domain.money import rounded

NOW = load("reports/now")
MERCHANT_IDS = load("reports/merchant_ids")
MERCHANTS = load("reports/merchants")
BOUNDARIES = load("reports/boundaries")
MOVEMENTS = load("reports/movements")
BALANCES = load("reports/balances")
REDEMPTIONS = load("reports/redemptions")
ACTIVITY = load("reports/activity")

Row = TypeVar("Row")


def all_merchant_ids(conn: Connection) -> list[str]:
    """Return all merchants that the shop, the programmes or the ledger have, sorted; raise `NoMappingError`."""
    require_shop(conn)
    return list(conn.execute(MERCHANT_IDS).scalars())


def liability(conn: Connection, merchant_ids: Sequence[str], *, months: int) -> LiabilityReport:
    """Return what merchants owe, this month and `months` before it.

    A merchant whose entries no column takes is among the failures. Raises `NoMappingError` when there is no shop to
    read: currencies and time zones are the shop's.
    """
    # Breakage is taken over more months than may be shown.
    merchants = _merchants(conn, merchant_ids, months=max(months, BREAKAGE_MONTHS))
    movements = _movements(conn, merchants, months=max(months, BREAKAGE_MONTHS))
    buckets = _buckets(conn, merchants)
    done, failures = [], {}
    for one in merchants:
        try:
            done.append(
                liability_of(one, movements.get(one.merchant_id, ()), buckets.get(one.merchant_id, ()), months=months)
            )
        except UnknownKindError as error:
            failures[one.merchant_id] = str(error)
    return LiabilityReport(as_of=conn.execute(NOW).scalar_one(), merchants=done, failures=failures)


def redemptions(conn: Connection, merchant_ids: Sequence[str], *, days: int, months: int) -> RedemptionReport:
    """Return what was redeemed today and `days` before, and this month and `months` before; raise `NoMappingError`."""
    merchants = _merchants(conn, merchant_ids, months=0)
    return RedemptionReport(
        as_of=conn.execute(NOW).scalar_one(),
        present_months={one.merchant_id: one.month_on for one in merchants},
        days=_periods(conn, merchants, unit=Unit.DAY, periods=days),
        months=_periods(conn, merchants, unit=Unit.MONTH, periods=months),
    )


def activity(conn: Connection, merchant_ids: Sequence[str], *, limit: int, days: int) -> ActivityReport:
    """Return the newest entries of each merchant, up to `limit` of the last `days` days, the newest first."""
    rows = conn.execute(ACTIVITY, {"merchant_ids": list(merchant_ids), "row_limit": limit, "days": days})
    return ActivityReport(
        as_of=conn.execute(NOW).scalar_one(),
        days=days,
        limit=limit,
        merchant_ids=list(merchant_ids),
        entries=[ActivityEntry(**row._mapping) for row in rows],
    )


def _merchants(conn: Connection, merchant_ids: Sequence[str], *, months: int) -> list[ReportedMerchant]:
    require_shop(conn)
    rows = conn.execute(MERCHANTS, {"merchant_ids": list(merchant_ids), "months": months})
    return [ReportedMerchant(**row._mapping) for row in rows]


def _boundaries(conn: Connection, merchants: Sequence[ReportedMerchant], *, unit: Unit, periods: int) -> list[datetime]:
    """Return the instants at which a period begins for any of the merchants, sorted."""
    zones = sorted({one.timezone for one in merchants})
    values = {"timezones": zones, "unit": unit.value, "periods": periods}
    return list(conn.execute(BOUNDARIES, values).scalars())


def _movements(conn: Connection, merchants: Sequence[ReportedMerchant], *, months: int) -> dict[str, list[Movement]]:
    if not merchants:
        return {}
    rows = conn.execute(
        MOVEMENTS,
        {
            "merchant_ids": [one.merchant_id for one in merchants],
            "timezones": [one.timezone for one in merchants],
            "since": [one.since_at for one in merchants],
            "boundaries": _boundaries(conn, merchants, unit=Unit.MONTH, periods=months),
        },
    )
    return _by_merchant(
        (
            row.merchant_id,
            Movement(month_on=row.month_on, kind=row.kind, points=int(row.points), entries=int(row.entries)),
        )
        for row in rows
    )


def _buckets(conn: Connection, merchants: Sequence[ReportedMerchant]) -> dict[str, list[BalanceBucket]]:
    rows = conn.execute(
        BALANCES,
        {
            "merchant_ids": [one.merchant_id for one in merchants],
            "timezones": [one.timezone for one in merchants],
            "months_on": [one.month_on for one in merchants],
            "expiring": [one.is_expiring for one in merchants],
            "months": CALENDAR_MONTHS,
        },
    )
    return _by_merchant(
        (
            row.merchant_id,
            BalanceBucket(
                bucket=row.bucket,
                month_on=row.month_on,
                accounts=row.accounts,
                balance=int(row.balance),
                free=int(row.free),
                held=int(row.held),
                debt=int(row.debt),
            ),
        )
        for row in rows
    )


def _periods(
    conn: Connection, merchants: Sequence[ReportedMerchant], *, unit: Unit, periods: int
) -> list[RedemptionPeriod]:
    if not merchants:
        return []
    currencies = {one.merchant_id: one.currency for one in merchants}
    rows = conn.execute(
        REDEMPTIONS,
        {
            "merchant_ids": list(currencies),
            "timezones": [one.timezone for one in merchants],
            "unit": unit.value,
            "periods": periods,
            "boundaries": _boundaries(conn, merchants, unit=unit, periods=periods),
        },
    )
    found = []
    for row in rows:
        currency = currencies[row.merchant_id]
        found.append(
            RedemptionPeriod(
                merchant_id=row.merchant_id,
                currency=currency,
                period_on=row.period_on,
                redemptions=int(row.redemptions),
                customers=int(row.customers),
                spent_points=int(row.spent_points),
                amount=None if row.amount is None or currency is None else rounded(row.amount, currency),
                restored_points=int(row.restored_points),
                earned_points=int(row.earned_points),
                holds_released=row.holds_released,
                holds_expired=row.holds_expired,
            )
        )
    return found


def _by_merchant(rows: Iterable[tuple[str, Row]]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for merchant_id, one in rows:
        found.setdefault(merchant_id, []).append(one)
    return found
