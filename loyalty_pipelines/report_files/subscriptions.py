"""The files of the report on payments and subscriptions, and the same as one document."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from markupsafe import Markup

from loyalty_pipelines.domain.alert_messages import Links
from loyalty_pipelines.domain.findings import Finding
from loyalty_pipelines.domain.money import UNKNOWN_CURRENCY, amount_text, currency_order, money_text, rounded
from loyalty_pipelines.domain.subscription_report import (
    AGES,
    AgeLine,
    ClassLine,
    MerchantReport,
    SubscriptionReport,
    TrendLine,
    ages_together,
    classes_together,
    trend_together,
)
from loyalty_pipelines.domain.subscriptions import BY_CODE
from loyalty_pipelines.report_files.charts import columns, line_and_bars
from loyalty_pipelines.report_files.pages import chart, page
from loyalty_pipelines.report_files.tables import ReportFile, csv_file

# What a page holds that a browser still opens at once; all of it is in the other files.
MERCHANTS_SHOWN = 200
MERCHANTS_DETAILED = 50
CURRENCIES_SHOWN = 4
FIXES_SHOWN = 100
SCHEMA_VERSION = 1
NO_LINKS = Links()

FINDING_COLUMNS = ("merchant_id", "finding_id", "class_name", "severity", "policy", "object_type", "object_id",
                   "amount_at_risk", "currency", "points_difference", "first_seen_at", "last_seen_at", "age_hours",
                   "times_seen")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CurrencySection:
    """What the page shows of one currency."""

    name: str
    ages: Sequence[AgeLine]
    trend_svg: Markup
    ages_svg: Markup


def subscription_files(
    report: SubscriptionReport, *, links: Links = NO_LINKS, run_id: str | None = None
) -> list[ReportFile]:
    """Return the page, one CSV file per class, and the whole as JSON; `links` say where the runbook can be read."""
    found: dict[str, list[Finding]] = {code: [] for code in BY_CODE}
    for one in report.findings:
        found.setdefault(one.class_name, []).append(one)
    document = json.dumps(report_document(report, run_id=run_id), indent=2, ensure_ascii=False, default=_json)
    return [
        subscription_page(report, links=links, run_id=run_id),
        ReportFile(name="subscriptions.json", content=document.encode("utf-8", "backslashreplace")),
        *(class_file(code, rows, as_of=report.as_of) for code, rows in found.items()),
    ]


def class_file(code: str, rows: Sequence[Finding], *, as_of: datetime) -> ReportFile:
    """Return the findings of a class with their evidence, a column for each of its names."""
    names = sorted({name for one in rows for name in one.evidence})
    return csv_file(
        f"{code}.csv",
        (*FINDING_COLUMNS, *(f"evidence_{name}" for name in names)),
        [(*_cells(one, as_of), *(_plain(one.evidence.get(name)) for name in names)) for one in rows],
    )


def _cells(one: Finding, as_of: datetime) -> tuple[Any, ...]:
    hours = Decimal(str(round((as_of - one.first_seen_at).total_seconds() / 3600, 1)))
    values = {"age_hours": hours}
    return tuple(values[name] if name in values else getattr(one, name) for name in FINDING_COLUMNS)


def _plain(value: Any) -> Any:
    """Return a value of evidence as a cell has it: what is made of parts as JSON."""
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    return Decimal(str(value)) if isinstance(value, float) else value


def report_document(report: SubscriptionReport, *, run_id: str | None = None) -> dict[str, Any]:
    """Return the report as one document, for programs."""
    return {
        "version": SCHEMA_VERSION,
        "as_of": report.as_of,
        "run_id": run_id,
        "money_at_risk": dict(report.money),
        "findings": report.open_findings,
        "new_findings_of_a_day": report.new_findings,
        "closed_findings_of_a_day": report.closed_findings,
        "findings_in_no_file": report.findings_left,
        "without_plans": list(report.without_plans),
        "classes": [_class(one) for one in classes_together(report.classes)],
        "ages": [_age(one) for one in ages_together(report.ages)],
        "trend": [_day(one) for one in trend_together(report.trend, report.days)],
        "merchants": [_merchant(one) for one in report.by_merchant()],
        "fixes_of_a_day": [
            {name: getattr(one, name) for name in one.__dataclass_fields__ if name != "class_name"}
            | {"class": one.class_name}
            for one in report.fixes
        ],
    }


def _merchant(one: MerchantReport) -> dict[str, Any]:
    return {
        "merchant_id": one.merchant.merchant_id,
        "compared_at": one.merchant.compared_at,
        "failure": one.merchant.failure,
        "money_at_risk": dict(one.money),
        "findings": one.findings,
        "classes": [_class(each) for each in one.classes],
        "ages": [_age(each) for each in one.ages],
        "trend": [_day(each) for each in one.trend],
    }


def _class(one: ClassLine) -> dict[str, Any]:
    return {
        "class": one.class_name,
        "severity": one.severity,
        "policy": one.policy,
        "currency": one.currency,
        "findings": one.findings,
        "new_findings_of_a_day": one.new_findings,
        "closed_findings_of_a_day": one.closed_findings,
        "amount_at_risk": one.amount,
        "first_seen_at": one.first_seen_at,
    }


def _age(one: AgeLine) -> dict[str, Any]:
    return {"age": one.label, "currency": one.currency, "findings": one.findings, "money_at_risk": one.amount}


def _day(one: TrendLine) -> dict[str, Any]:
    return {
        "day": one.day_on,
        "currency": one.currency,
        "errors": one.errors,
        "warnings": one.warnings,
        "money_at_risk": one.amount,
    }


def _json(value: object) -> str:
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    raise TypeError(f"{type(value).__name__} has no place in a report")


def subscription_page(report: SubscriptionReport, *, links: Links = NO_LINKS, run_id: str | None = None) -> ReportFile:
    """Return the page with its charts."""
    ages, trend = ages_together(report.ages), trend_together(report.trend, report.days)
    # Where there are many, those with most money.
    by_worth = sorted({one.currency for one in trend}, key=lambda name: (-_worth(ages, name), currency_order(name)))
    currencies = sorted(by_worth[:CURRENCIES_SHOWN], key=currency_order)
    merchants = report.by_merchant()
    wrong = [one for one in merchants if one.findings]
    return page(
        "subscriptions.html",
        "subscriptions.html",
        report=report,
        run_id=run_id,
        money=money_text(report.money),
        classes=[one for one in classes_together(report.classes) if one.findings],
        meanings={code: one.meaning for code, one in BY_CODE.items()},
        runbook=lambda code: links.to_runbook(f"runbooks/subscriptions.md#{code}"),
        currencies=[_section(name, ages, trend, number) for number, name in enumerate(currencies)],
        currencies_left=len(by_worth) - len(currencies),
        failed=[one.merchant for one in merchants if one.merchant.failure][:MERCHANTS_SHOWN],
        merchants=wrong[:MERCHANTS_SHOWN],
        merchants_left=max(0, len(wrong) - MERCHANTS_SHOWN),
        merchants_right=len(merchants) - len(wrong),
        detailed=MERCHANTS_DETAILED,
        fixes=report.fixes[:FIXES_SHOWN],
        fixes_left=max(0, len(report.fixes) - FIXES_SHOWN),
        amount_text=amount_text,
        money_text=money_text,
        rounded=rounded,
    )


def _worth(ages: Sequence[AgeLine], currency: str | None) -> Decimal:
    return sum((one.amount for one in ages if one.currency == currency), Decimal(0))


def _section(currency: str | None, ages: Sequence[AgeLine], trend: Sequence[TrendLine], number: int) -> CurrencySection:
    days = [one for one in trend if one.currency == currency]
    old = [one for one in ages if one.currency == currency]
    name = currency or UNKNOWN_CURRENCY
    return CurrencySection(
        name=name,
        ages=old,
        trend_svg=chart(
            line_and_bars(
                [f"{one.day_on:%m-%d}" for one in days],
                [float(one.amount) for one in days],
                {
                    "errors": [float(one.errors) for one in days],
                    "warnings": [float(one.warnings) for one in days],
                },
                line_title=f"Money at risk at the end of the day, {name}",
                bars_title="Open findings",
                key=f"subscriptions-{number}",
            )
        ),
        ages_svg=chart(
            columns(
                list(AGES),
                [float(one.amount) for one in old] or [0.0] * len(AGES),
                title=f"By age, {name}",
                key=f"subscriptions-ages-{number}",
                width=8,
                height=3,
            )
        ),
    )
