"""The files of the liability report."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from markupsafe import Markup

from loyalty_pipelines.domain.liability import (
    COLUMNS,
    CURRENCY_UNKNOWN,
    CalendarLine,
    LiabilityReport,
    MerchantLiability,
)
from loyalty_pipelines.domain.money import total
from loyalty_pipelines.report_files.charts import columns, line_and_bars
from loyalty_pipelines.report_files.pages import chart, page
from loyalty_pipelines.report_files.tables import ReportFile, csv_file, csv_text

# What a page holds that a browser still opens at once; all of it is in the CSV files.
MERCHANTS_SHOWN = 200
MERCHANTS_DETAILED = 50
CURRENCIES_SHOWN = 4

MONTH_COLUMNS = ("merchant_id", "month", "is_closed", "timezone", "opening", *COLUMNS, "closing", "currency",
                 "point_value_amount", "closing_amount")  # fmt: skip
MERCHANT_COLUMNS = ("merchant_id", "currency", "point_value_amount", "timezone", "accounts", "closing", "balance",
                    "difference", "closing_amount", "held", "debt", "breakage")  # fmt: skip
CALENDAR_COLUMNS = ("merchant_id", "goes", "points", "currency", "amount")


@dataclass(frozen=True, kw_only=True)
class CurrencySection:
    """What the page shows of the merchants of one currency."""

    name: str
    currency: str | None
    calendar: Sequence[CalendarLine]
    months_svg: Markup
    calendar_svg: Markup


def liability_files(report: LiabilityReport, *, run_id: str | None = None) -> list[ReportFile]:
    """Return the page, and the months, merchants and calendar as CSV."""
    return [
        csv_file("liability.csv", MONTH_COLUMNS, month_rows(report)),
        csv_file("merchants.csv", MERCHANT_COLUMNS, merchant_rows(report)),
        csv_file("calendar.csv", CALENDAR_COLUMNS, calendar_rows(report)),
        liability_page(report, run_id=run_id),
    ]


def liability_csv(report: LiabilityReport) -> str:
    """Return the months as CSV."""
    return csv_text(MONTH_COLUMNS, month_rows(report))


def month_rows(report: LiabilityReport) -> list[tuple[Any, ...]]:
    """Return a row per merchant and month."""
    return [
        (
            one.merchant_id,
            f"{month.month_on:%Y-%m}",
            month.is_closed,
            one.merchant.timezone,
            month.opening,
            *(getattr(month, name) for name in COLUMNS),
            month.closing,
            one.merchant.currency,
            one.merchant.point_value_amount,
            one.worth(month.closing),
        )
        for one in report.merchants
        for month in one.months
    ]


def merchant_rows(report: LiabilityReport) -> list[tuple[Any, ...]]:
    """Return a row per merchant."""
    return [
        (
            one.merchant_id,
            one.merchant.currency,
            one.merchant.point_value_amount,
            one.merchant.timezone,
            one.accounts,
            one.closing,
            one.balance,
            one.difference,
            one.amount,
            one.line("held").points,
            one.line("debt").points,
            one.breakage,
        )
        for one in report.merchants
    ]


def calendar_rows(report: LiabilityReport) -> list[tuple[Any, ...]]:
    """Return a row per merchant and time at which points go."""
    return [
        (one.merchant_id, line.label, line.points, one.merchant.currency, line.amount)
        for one in report.merchants
        for line in one.calendar
    ]


def liability_page(report: LiabilityReport, *, run_id: str | None = None) -> ReportFile:
    """Return the page with its charts."""
    by_size = sorted(report.merchants, key=lambda one: (-one.closing, one.merchant_id))
    sections = []
    for number, sums in enumerate(report.totals[:CURRENCIES_SHOWN]):
        members = [
            one
            for one in report.merchants
            if (one.merchant.currency if one.amount is not None else None) == sums.currency
        ]
        sections.append(_section(sums.currency, members, key=f"liability-{number}"))
    return page(
        "liability.html",
        "liability.html",
        report=report,
        run_id=run_id,
        currencies=sections,
        currencies_left=max(0, len(report.totals) - CURRENCIES_SHOWN),
        merchants=by_size[:MERCHANTS_SHOWN],
        merchants_left=max(0, len(by_size) - MERCHANTS_SHOWN),
        wrong=sorted((one for one in report.merchants if one.difference), key=lambda one: -abs(one.difference)),
        shown=MERCHANTS_SHOWN,
        detailed=MERCHANTS_DETAILED,
    )


def _section(currency: str | None, members: Sequence[MerchantLiability], *, key: str) -> CurrencySection:
    closing = owed_by_month(members, currency)
    months = list(closing)
    moved: dict[str, dict[date, int]] = {name: dict.fromkeys(months, 0) for name in COLUMNS}
    for one in members:
        for month in one.months:
            for name, sign in COLUMNS.items():
                moved[name][month.month_on] += sign * getattr(month, name)
    calendar = _calendar_of(currency, members)
    going = [line for line in calendar if line.what in ("overdue", "month", "later")]
    return CurrencySection(
        name=currency or CURRENCY_UNKNOWN.capitalize(),
        currency=currency,
        calendar=calendar,
        months_svg=chart(
            line_and_bars(
                [f"{one:%Y-%m}" for one in months],
                list(map(float, closing.values())),
                {name: list(map(float, values.values())) for name, values in moved.items()},
                line_title=f"Owed at the end of the month, {currency or 'points'}",
                bars_title="What came and went, points",
                key=key,
            )
        ),
        calendar_svg=chart(
            columns(
                [line.label for line in going],
                [float((line.amount or 0) if currency else line.points) for line in going],
                title=currency or "points",
                key=f"{key}-calendar",
                width=8,
                height=4.4,
            )
        ),
    )


def owed_by_month(members: Sequence[MerchantLiability], currency: str | None) -> dict[date, Decimal]:
    """Return what is owed at the end of each month, in a currency or (None) in points.

    Months of merchants in other time zones begin and end apart: a merchant counts in all of them.
    """
    found = dict.fromkeys(sorted({month.month_on for one in members for month in one.months}), Decimal(0))
    for one in members:
        closing = {month.month_on: month.closing for month in one.months}
        # Before its first month it owed what that opens with, after its last one it owes what that closes with.
        points = one.months[0].opening
        for month_on in found:
            points = closing.get(month_on, points)
            found[month_on] += one.worth(points) or Decimal(0) if currency else points
    return found


def _calendar_of(currency: str | None, members: Sequence[MerchantLiability]) -> list[CalendarLine]:
    """Return the sums of the members' calendars; at a month's end they are not all in the same month."""
    found: dict[tuple[str, date | None], list[CalendarLine]] = {}
    for one in members:
        for line in one.calendar:
            found.setdefault((line.what, line.month_on), []).append(line)
    order = ("overdue", "month", "later", "never", "held", "debt")
    return [
        CalendarLine(
            what=what,
            month_on=month_on,
            points=sum(line.points for line in lines),
            amount=total(line.amount for line in lines if line.amount is not None) if currency else None,
        )
        for (what, month_on), lines in sorted(
            found.items(), key=lambda item: (order.index(item[0][0]), item[0][1] or date.min)
        )
    ]
