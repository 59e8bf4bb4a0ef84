"""`loyalty reports`: what is owed in points, how points are redeemed, what happened lately; on screen or as files."""

import os
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from loyalty_pipelines.cli.base import database, json_option, require_ready
from loyalty_pipelines.cli.option_types import TEXT
from loyalty_pipelines.cli.output import counted, print_json, print_table, printable, say, shown
from loyalty_pipelines.domain.activity import (
    DEFAULT_ACTIVITY_DAYS,
    DEFAULT_DAYS,
    DEFAULT_ENTRIES,
    MAX_ENTRIES,
    MAX_PERIODS,
    Unit,
)
from loyalty_pipelines.domain.activity import DEFAULT_MONTHS as REDEMPTION_MONTHS
from loyalty_pipelines.domain.liability import COLUMNS, DEFAULT_MONTHS, MAX_MONTHS

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from loyalty_pipelines.domain.activity import ActivityReport, RedemptionReport
    from loyalty_pipelines.domain.liability import LiabilityReport, MerchantLiability
    from loyalty_pipelines.domain.subscription_report import SubscriptionReport
    from loyalty_pipelines.report_files.tables import ReportFile
    from loyalty_pipelines.resources.report_store import ReportStore

MERCHANTS_PRINTED = 100

merchant_option = click.option("--merchant", type=TEXT, help="Only this merchant's.")
csv_option = click.option("--csv", "as_csv", is_flag=True, help="Print CSV and nothing else.")
to_option = click.option(
    "--to", type=TEXT, metavar="PATH_OR_URL", help="Write HTML and CSV files there, as the nightly run does."
)


@click.group()
def reports() -> None:
    """Show what merchants owe in points, how points are redeemed, and what happened lately."""


@reports.command()
@merchant_option
@click.option("--months", type=click.IntRange(1, MAX_MONTHS), default=DEFAULT_MONTHS, show_default=True,
              help="How many months before this one.")  # fmt: skip
@json_option
@csv_option
@to_option
def liability(merchant: str | None, months: int, as_json: bool, as_csv: bool, to: str | None) -> None:
    """Show what merchants owe their customers: all of them this month, or MERCHANT month by month.

    opening + imported + earned + bonus + restored - spent - expired - reversed + adjusted = closing. Exit status 1: the
    balances of a merchant are not what its ledger says, or it could not be computed.
    """
    from loyalty_pipelines.db.reports_run import report_liability
    from loyalty_pipelines.domain.liability import CURRENCY_UNKNOWN

    _require_one(as_json, as_csv, to)
    store = _store(to)
    with database(as_json=as_json or as_csv) as engine:
        report = report_liability(engine, _chosen(engine, merchant), months=months)
    if as_json:
        print_json(
            {
                "as_of": report.as_of,
                "totals": report.totals,
                "merchants": [
                    {
                        "merchant": one.merchant,
                        "closing": one.closing,
                        "balance": one.balance,
                        "difference": one.difference,
                        "amount": one.amount,
                        "breakage": one.breakage,
                        "months": one.months,
                        "calendar": one.calendar,
                    }
                    for one in report.merchants
                ],
                "failures": report.failures,
            }
        )
    elif as_csv:
        from loyalty_pipelines.report_files.liability import liability_csv

        _print_csv(liability_csv(report))
    elif store is not None:
        from loyalty_pipelines.report_files.liability import liability_files

        run_id = str(uuid.uuid4())
        _write(store, "points_liability", report, liability_files(report, run_id=run_id), run_id=run_id)
    else:
        _print_liability(report, is_one=merchant is not None)
        for sums in report.totals:
            name = CURRENCY_UNKNOWN if sums.currency is None else f"{shown(sums.amount)} {sums.currency}"
            say(f"{counted(sums.merchants, 'merchant')}: {sums.points:,} points, {name}")
    wrong = [one for one in report.merchants if one.difference]
    for one in wrong:
        text = (
            f"Error: merchant {one.merchant_id}: its balances sum to {one.balance:,} points, its ledger to "
            f"{one.closing:,}: a difference of {one.difference:+,}. docs/runbooks/reports.md says what to do."
        )
        click.echo(printable(text), err=True)
    _end(report.failures, is_wrong=bool(wrong))


@reports.command()
@merchant_option
@click.option("--by", type=click.Choice([one.value for one in Unit]), default=Unit.DAY.value, show_default=True,
              help="How long a period is.")  # fmt: skip
@click.option("--days", type=click.IntRange(1, MAX_PERIODS), default=DEFAULT_DAYS, show_default=True,
              help="How many days before today.")  # fmt: skip
@click.option("--months", type=click.IntRange(1, MAX_MONTHS), default=REDEMPTION_MONTHS, show_default=True,
              help="How many months before this one.")  # fmt: skip
@json_option
@csv_option
@to_option
def redemptions(
    merchant: str | None, by: str, days: int, months: int, as_json: bool, as_csv: bool, to: str | None
) -> None:
    """Show per merchant and day or month how points were redeemed, and what they were worth then."""
    from loyalty_pipelines.db.reports_run import report_redemptions

    _require_one(as_json, as_csv, to)
    store = _store(to)
    with database(as_json=as_json or as_csv) as engine:
        report = report_redemptions(engine, _chosen(engine, merchant), days=days, months=months)
    unit = Unit(by)
    if as_json:
        print_json({"as_of": report.as_of, "days": report.days, "months": report.months, "failures": report.failures})
    elif as_csv:
        from loyalty_pipelines.report_files.activity import redemption_csv

        _print_csv(redemption_csv(report.days if unit is Unit.DAY else report.months, unit=unit))
    elif store is not None:
        from loyalty_pipelines.report_files.activity import redemption_files

        run_id = str(uuid.uuid4())
        _write(store, "redemption_stats", report, redemption_files(report, run_id=run_id), run_id=run_id)
    else:
        _print_redemptions(report, unit)
    _end(report.failures)


@reports.command()
@merchant_option
@click.option("--limit", type=click.IntRange(1, MAX_ENTRIES), default=DEFAULT_ENTRIES, show_default=True,
              help="How many of the newest entries of a merchant.")  # fmt: skip
@click.option("--days", type=click.IntRange(1, MAX_PERIODS), default=DEFAULT_ACTIVITY_DAYS, show_default=True,
              help="Only entries of so many days.")  # fmt: skip
@json_option
@csv_option
@to_option
def activity(merchant: str | None, limit: int, days: int, as_json: bool, as_csv: bool, to: str | None) -> None:
    """Show the newest ledger entries of each merchant, or of MERCHANT: ids and numbers, no names."""
    from loyalty_pipelines.db.reports_run import report_activity

    _require_one(as_json, as_csv, to)
    store = _store(to)
    with database(as_json=as_json or as_csv) as engine:
        report = report_activity(engine, _chosen(engine, merchant), limit=limit, days=days)
    if as_json:
        print_json({"as_of": report.as_of, "entries": report.entries, "failures": report.failures})
    elif as_csv:
        from loyalty_pipelines.report_files.activity import activity_csv

        _print_csv(activity_csv(report))
    elif store is not None:
        from loyalty_pipelines.report_files.activity import activity_files

        run_id = str(uuid.uuid4())
        _write(store, "recent_activity", report, activity_files(report, run_id=run_id), run_id=run_id)
    else:
        _print_activity(report)
    _end(report.failures)


@reports.command()
@merchant_option
@json_option
@to_option
def subscriptions(merchant: str | None, as_json: bool, to: str | None) -> None:
    """Show the money at risk where payments, orders, subscriptions and points disagree: by class, age and day.

    What somebody has accepted is left out. It is as fresh as the last comparison ('loyalty subscriptions check').
    """
    from loyalty_pipelines.db.subscription_report import report_subscriptions
    from loyalty_pipelines.domain.alert_settings import alert_settings
    from loyalty_pipelines.domain.subscription_report import REPORT
    from loyalty_pipelines.platform_time import platform_timezone
    from loyalty_pipelines.report_files.subscriptions import report_document, subscription_files

    _require_one(as_json, as_csv=False, to=to)
    store = _store(to)
    with database(as_json=as_json) as engine:
        _chosen(engine, merchant)
        report = report_subscriptions(engine, merchant, timezone=platform_timezone())
    if as_json:
        print_json(report_document(report))
    elif store is not None:
        run_id = str(uuid.uuid4())
        links = alert_settings(os.environ).links
        _write(store, REPORT, report, subscription_files(report, links=links, run_id=run_id), run_id=run_id)
    else:
        _print_subscriptions(report)
    _end({one.merchant_id: one.failure for one in report.merchants if one.failure})


def _print_subscriptions(report: "SubscriptionReport") -> None:
    from loyalty_pipelines.domain.money import amount_text, money_text
    from loyalty_pipelines.domain.subscription_report import ages_together, classes_together

    classes = [one for one in classes_together(report.classes) if one.findings]
    if classes:
        print_table(
            ("class", "severity", "policy", "findings", "new", "at risk", "since"),
            [
                (one.class_name, one.severity, one.policy, one.findings, one.new_findings,
                 amount_text(one.amount, one.currency), one.first_seen_at)
                for one in classes
            ],
            numbers=("findings", "new", "at risk"),
        )  # fmt: skip
        print_table(
            ("age", "findings", "at risk"),
            [
                (one.label, one.findings, amount_text(one.amount, one.currency))
                for one in ages_together(report.ages)
                if one.findings
            ],
            numbers=("findings", "at risk"),
        )
        wrong = [one for one in report.by_merchant() if one.findings]
        if len(wrong) > 1:
            print_table(
                ("merchant", "findings", "at risk"),
                [(one.merchant.merchant_id, one.findings, money_text(one.money)) for one in wrong[:MERCHANTS_PRINTED]],
                numbers=("findings",),
            )
    say(
        f"{money_text(report.money).capitalize() if not report.money else money_text(report.money)} at risk: "
        f"{counted(report.open_findings, 'open finding')}, {report.new_findings:,} new since yesterday."
    )
    for line in report.without_plans:
        say(line)


def _require_one(as_json: bool, as_csv: bool, to: str | None) -> None:
    if [as_json, as_csv, to is not None].count(True) > 1:
        raise click.UsageError("Choose one of --json, --csv and --to.")


def _chosen(engine: "Engine", merchant: str | None) -> list[str] | None:
    from loyalty_pipelines.db import programs
    from loyalty_pipelines.db.engine import reading

    with reading(engine) as conn:
        require_ready(conn)
        if merchant is not None:
            programs.require_merchant(conn, merchant)
    return None if merchant is None else [merchant]


def _store(to: str | None) -> "ReportStore | None":
    """Return where files go; a place that can't be used is said before the ledger is read."""
    from loyalty_pipelines import embedded
    from loyalty_pipelines.resources.report_store import report_store

    return None if to is None else report_store(os.environ, home=embedded.home(), url=to)


def _write(
    store: "ReportStore",
    name: str,
    report: "LiabilityReport | RedemptionReport | ActivityReport | SubscriptionReport",
    files: "Sequence[ReportFile]",
    *,
    run_id: str,
) -> None:
    from loyalty_pipelines.platform_time import platform_timezone

    on = report.as_of.astimezone(platform_timezone()).date()
    for path in store.write(name, files, on=on, run_id=run_id).values():
        say(path)


def _print_csv(text: str) -> None:
    click.echo(text.replace("\r\n", "\n"), nl=False)


def _end(failures: Any, *, is_wrong: bool = False) -> None:
    for merchant_id, reason in sorted(failures.items()):
        click.echo(printable(f"Error: merchant {merchant_id} failed: {reason}"), err=True)
    if failures or is_wrong:
        click.get_current_context().exit(1)


def _print_liability(report: "LiabilityReport", *, is_one: bool) -> None:
    numbers = ("opening", *COLUMNS, "closing", "worth", "overdue")
    listed = sorted(report.merchants, key=lambda one: (-one.closing, one.merchant_id))[:MERCHANTS_PRINTED]
    if is_one:
        for one in listed:
            print_table(
                ("month", *numbers[:-1]),
                [(f"{month.month_on:%Y-%m}", *_cells(one, number)) for number, month in enumerate(one.months)],
                numbers=numbers,
            )
            going = [line for line in one.calendar if line.points]
            if going:
                print_table(
                    ("goes", "points", "worth"),
                    [(line.label, line.points, line.amount) for line in going],
                    numbers=("points", "worth"),
                )
        return
    print_table(
        ("merchant", *numbers, "currency"),
        [
            (one.merchant_id, *_cells(one, -1), one.line("overdue").points, one.merchant.currency or "unknown")
            for one in listed
        ],
        numbers=numbers,
    )
    if len(report.merchants) > len(listed):
        say(f"The {len(listed)} merchants with the most points; --csv has all {len(report.merchants):,}.")


def _cells(one: "MerchantLiability", number: int) -> tuple[object, ...]:
    month = one.months[number]
    return (
        month.opening,
        *(getattr(month, name) for name in COLUMNS),
        month.closing,
        one.worth(month.closing),
    )


def _print_redemptions(report: "RedemptionReport", unit: Unit) -> None:
    from loyalty_pipelines.report_files.activity import period_label

    found = report.days if unit is Unit.DAY else report.months
    if not found:
        say("Nothing was earned, redeemed or released in that time.")
        return
    numbers = ("redemptions", "customers", "points", "average", "worth", "given back", "earned", "redeemed of earned",
               "holds released", "holds run out")  # fmt: skip
    print_table(
        (unit.value, "merchant", *numbers, "currency"),
        [
            (
                period_label(one.period_on, unit),
                one.merchant_id,
                one.redemptions,
                one.customers,
                one.spent_points,
                one.average_points,
                one.amount,
                one.restored_points,
                one.earned_points,
                None if one.share_of_earned is None else f"{100 * one.share_of_earned:.1f} %",
                one.holds_released,
                one.holds_expired,
                one.currency or "unknown",
            )
            for one in sorted(found, key=lambda one: (one.period_on, one.merchant_id), reverse=True)
        ],
        numbers=numbers,
    )


def _print_activity(report: "ActivityReport") -> None:
    if not report.entries:
        say(f"Nothing was recorded in the last {counted(report.days, 'day')}.")
        return
    print_table(
        ("recorded", "merchant", "customer", "kind", "points", "before", "after", "reference", "by", "run"),
        [
            (
                one.recorded_at,
                one.merchant_id,
                one.customer_id,
                one.kind,
                f"{one.points:+,}",
                one.balance_before,
                one.balance_after,
                f"{one.reference_type} {one.reference_id}",
                one.actor,
                one.run_id,
            )
            for one in report.entries
        ],
        numbers=("points", "before", "after"),
    )
