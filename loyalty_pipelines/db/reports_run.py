"""The transactions of reports: each of one snapshot; a merchant that PostgreSQL can't compute is kept apart."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db import reports
from loyalty_pipelines.db.drain import short_text
from loyalty_pipelines.db.engine import is_caused_by_a_row, reading, with_retries
from loyalty_pipelines.domain.activity import (
    DEFAULT_ACTIVITY_DAYS,
    DEFAULT_DAYS,
    DEFAULT_ENTRIES,
    ActivityReport,
    RedemptionReport,
)
from loyalty_pipelines.domain.activity import DEFAULT_MONTHS as REDEMPTION_MONTHS
from loyalty_pipelines.domain.liability import DEFAULT_MONTHS, LiabilityReport

Report = TypeVar("Report")


def report_liability(
    engine: Engine, merchants: Sequence[str] | None = None, *, months: int = DEFAULT_MONTHS
) -> LiabilityReport:
    """Return what merchants owe (None: all, also those that left the shop); raise `NoMappingError`."""
    found, failures = _of_merchants(engine, merchants, partial(reports.liability, months=months))
    for one in found:
        failures.update(one.failures)
    return replace(found[0], merchants=[each for one in found for each in one.merchants], failures=failures)


def report_redemptions(
    engine: Engine,
    merchants: Sequence[str] | None = None,
    *,
    days: int = DEFAULT_DAYS,
    months: int = REDEMPTION_MONTHS,
) -> RedemptionReport:
    """Return what was redeemed at merchants (None: all, also those that left the shop); raise `NoMappingError`."""
    found, failures = _of_merchants(engine, merchants, partial(reports.redemptions, days=days, months=months))
    return replace(
        found[0],
        present_months={name: month_on for one in found for name, month_on in one.present_months.items()},
        days=[each for one in found for each in one.days],
        months=[each for one in found for each in one.months],
        failures=failures,
    )


def report_activity(
    engine: Engine,
    merchants: Sequence[str] | None = None,
    *,
    limit: int = DEFAULT_ENTRIES,
    days: int = DEFAULT_ACTIVITY_DAYS,
) -> ActivityReport:
    """Return the newest entries of merchants (None: all, also those that left the shop); raise `NoMappingError`."""
    found, failures = _of_merchants(engine, merchants, partial(reports.activity, limit=limit, days=days))
    return replace(
        found[0],
        merchant_ids=[each for one in found for each in one.merchant_ids],
        entries=[each for one in found for each in one.entries],
        failures=failures,
    )


def _of_merchants(
    engine: Engine, merchants: Sequence[str] | None, read: Callable[[Connection, Sequence[str]], Report]
) -> tuple[list[Report], dict[str, str]]:
    """Return one report of all merchants; where a row of one is refused, one report per merchant, and the reasons."""

    def ids() -> list[str]:
        with reading(engine) as conn:
            return reports.all_merchant_ids(conn)

    def once(chosen: Sequence[str]) -> Report:
        with reading(engine, is_one_snapshot=True) as conn:
            return read(conn, chosen)

    wanted = sorted(set(merchants)) if merchants is not None else with_retries(ids)
    try:
        return [with_retries(partial(once, wanted))], {}
    except DBAPIError as error:
        # Such as a value of one merchant that the mapping can't convert.
        if not is_caused_by_a_row(error):
            raise
    found, failures = [with_retries(partial(once, []))], {}
    for merchant_id in wanted:
        try:
            found.append(with_retries(partial(once, [merchant_id])))
        except DBAPIError as error:
            if not is_caused_by_a_row(error):
                raise
            failures[merchant_id] = short_text(error)
    return found, failures
