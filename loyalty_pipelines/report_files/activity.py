"""The files of the reports on redemptions and on recent activity."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from loyalty_pipelines.domain.activity import ActivityEntry, ActivityReport, RedemptionPeriod, RedemptionReport, Unit
from loyalty_pipelines.domain.money import total
from loyalty_pipelines.report_files.charts import columns
from loyalty_pipelines.report_files.pages import chart, page
from loyalty_pipelines.report_files.tables import ReportFile, csv_file, csv_text

ROWS_SHOWN = 500

REDEMPTION_COLUMNS = ("merchant_id", "period", "redemptions", "customers", "spent_points", "average_points", "currency",
                      "amount", "restored_points", "earned_points", "share_of_earned", "holds_released",
                      "holds_expired")  # fmt: skip
ACTIVITY_COLUMNS = tuple(one.name for one in fields(ActivityEntry))


@dataclass(frozen=True, kw_only=True)
class RedeemedTotal:
    """What was redeemed in one currency over the days of a report; None: the currency or the worth is not known."""

    currency: str | None
    redemptions: int
    points: int
    amount: Decimal | None
    since_on: date


def redemption_files(report: RedemptionReport, *, run_id: str | None = None) -> list[ReportFile]:
    """Return the page, and days and months as CSV."""
    return [
        csv_file("redemptions_by_day.csv", REDEMPTION_COLUMNS, redemption_rows(report.days, unit=Unit.DAY)),
        csv_file("redemptions_by_month.csv", REDEMPTION_COLUMNS, redemption_rows(report.months, unit=Unit.MONTH)),
        _redemption_page(report, run_id=run_id),
    ]


def redemption_csv(periods: Sequence[RedemptionPeriod], *, unit: Unit) -> str:
    """Return days or months as CSV."""
    return csv_text(REDEMPTION_COLUMNS, redemption_rows(periods, unit=unit))


def redemption_rows(periods: Sequence[RedemptionPeriod], *, unit: Unit) -> list[tuple[Any, ...]]:
    """Return a row per merchant and period."""
    return [
        (
            one.merchant_id,
            period_label(one.period_on, unit),
            *(getattr(one, name) for name in REDEMPTION_COLUMNS[2:]),
        )
        for one in periods
    ]


def period_label(period_on: date, unit: Unit) -> str:
    """Return a day as 2026-11-21, a month as 2026-11."""
    return f"{period_on:%Y-%m-%d}" if unit is Unit.DAY else f"{period_on:%Y-%m}"


def activity_files(report: ActivityReport, *, run_id: str | None = None) -> list[ReportFile]:
    """Return the page, and the entries as CSV."""
    newest = sorted(report.entries, key=lambda one: one.recorded_at, reverse=True)
    return [
        csv_file("activity.csv", ACTIVITY_COLUMNS, activity_rows(report)),
        page(
            "activity.html",
            "activity.html",
            report=report,
            run_id=run_id,
            entries=newest[:ROWS_SHOWN],
            entries_left=max(0, len(newest) - ROWS_SHOWN),
        ),
    ]


def activity_csv(report: ActivityReport) -> str:
    """Return the entries as CSV."""
    return csv_text(ACTIVITY_COLUMNS, activity_rows(report))


def activity_rows(report: ActivityReport) -> list[tuple[Any, ...]]:
    """Return a row per entry."""
    return [tuple(getattr(one, name) for name in ACTIVITY_COLUMNS) for one in report.entries]


def redeemed_totals(periods: Sequence[RedemptionPeriod]) -> list[RedeemedTotal]:
    """Return the sums per currency; currencies are never added."""
    groups: dict[str | None, list[RedemptionPeriod]] = {}
    for one in periods:
        if one.redemptions:
            groups.setdefault(one.currency if one.amount is not None else None, []).append(one)
    found = [
        RedeemedTotal(
            currency=currency,
            redemptions=sum(one.redemptions for one in group),
            points=sum(one.spent_points for one in group),
            amount=None if currency is None else total(one.amount for one in group if one.amount is not None),
            since_on=min(one.period_on for one in group),
        )
        for currency, group in groups.items()
    ]
    return sorted(found, key=lambda one: (one.currency is None, -one.redemptions, one.currency or ""))


def spent_by_day(periods: Sequence[RedemptionPeriod], *, upto: date) -> dict[date, int]:
    """Return the points redeemed on each day from the first one to `upto`, quiet ones, too."""
    days = [one.period_on for one in periods]
    if not days:
        return {}
    # Tomorrow may have begun for a merchant.
    first, last = min(days), max(*days, upto)
    spent = {first + timedelta(days=number): 0 for number in range((last - first).days + 1)}
    for one in periods:
        spent[one.period_on] += one.spent_points
    return spent


def _redemption_page(report: RedemptionReport, *, run_id: str | None) -> ReportFile:
    spent = spent_by_day(report.days, upto=report.as_of.date())
    by_day, by_month = (
        sorted(periods, key=lambda one: (-one.period_on.toordinal(), one.merchant_id))
        for periods in (report.days, report.months)
    )
    return page(
        "redemptions.html",
        "redemptions.html",
        report=report,
        run_id=run_id,
        totals=redeemed_totals(report.days),
        days_svg=chart(
            columns(
                [f"{one:%m-%d}" for one in spent], list(map(float, spent.values())), title="Points", key="redemptions"
            )
        ),
        days=by_day[:ROWS_SHOWN],
        days_left=max(0, len(by_day) - ROWS_SHOWN),
        months=by_month[:ROWS_SHOWN],
        months_left=max(0, len(by_month) - ROWS_SHOWN),
        shown=ROWS_SHOWN,
    )
