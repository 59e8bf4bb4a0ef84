"""What payments, orders, subscriptions and points disagree on: found, put right where it is safe, reported."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from loyalty_pipelines.assets.alerts import NIGHTLY
from loyalty_pipelines.assets.awards import (
    AWARDED_POINTS,
    LIVE_AWARDS,
    OWNERS,
    RETRY_TRANSIENT,
    failed_merchants,
    retrying_only_what_passes,
)
from loyalty_pipelines.assets.shop import MERCHANTS_TABLE, ORDERS, PAYMENTS, PLANS, REFUNDS, SUBSCRIPTIONS
from loyalty_pipelines.domain.subscriptions import BY_CODE, JOB, NOT_MAPPED
from loyalty_pipelines.partitions import MERCHANTS
from loyalty_pipelines.platform_time import platform_timezone
from loyalty_pipelines.resources.alerter import Alerter
from loyalty_pipelines.resources.database import LedgerDatabase
from loyalty_pipelines.resources.reports import Reports

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from loyalty_pipelines.domain.subscription_report import SubscriptionReport
    from loyalty_pipelines.domain.subscriptions import MerchantComparison

    Metadata = dict[str, dg.MetadataValue]

SUBSCRIPTION_MISMATCHES = dg.AssetKey(["loyalty", JOB])
SUBSCRIPTION_REPORT = dg.AssetKey(["loyalty", "subscription_report"])
SUBSCRIPTIONS_POOL = "subscriptions"
FIXES_POOL = "subscription_fixes"
# Rows of a table in an event: events are kept for weeks, the files have all rows.
ROWS_SHOWN = 50


class ComparisonConfig(dg.Config):
    """How much to compare."""

    full: bool = Field(
        default=True,
        description="Compare everything. False: what the shop changed since the last comparison, and all where there "
        "was none.",
    )
    everybody: bool = Field(
        default=False,
        description="All merchants that the shop lists or that something is known of, whatever partitions are chosen. "
        "The schedules say True; it is faster, too.",
    )


# One step for all merchants, as for balance_integrity: one pass over the shop's tables serves them all.
@dg.multi_asset(
    name=JOB,
    specs=[
        dg.AssetSpec(
            SUBSCRIPTION_MISMATCHES,
            group_name="subscriptions",
            deps=[PAYMENTS, SUBSCRIPTIONS, PLANS, ORDERS, REFUNDS, MERCHANTS_TABLE, LIVE_AWARDS, AWARDED_POINTS],
            description="Every payment compared with its subscription, every subscription with its payments, orders "
            "with both and with their points: what disagrees becomes a finding, with its rows, since when, what it "
            "costs, and who may put it right ('loyalty subscriptions findings'). Every 5 minutes what changed, every "
            "night everything. Changes nothing in the shop.",
            kinds={"postgres"},
            owners=OWNERS,
            partitions_def=MERCHANTS,
            skippable=True,
            freshness_policy=NIGHTLY,
        )
    ],
    backfill_policy=dg.BackfillPolicy.single_run(),
    retry_policy=RETRY_TRANSIENT,
    pool=SUBSCRIPTIONS_POOL,
)
def subscription_mismatches(context: dg.AssetExecutionContext, config: ComparisonConfig, ledger: LedgerDatabase):
    from loyalty_pipelines.db.subscriptions_run import check

    chosen = set(context.partition_keys)
    failures = {}
    with retrying_only_what_passes(), ledger.engine() as engine:
        merchants = None if config.everybody else sorted(chosen)
        is_wanted = _is_mapped(engine, context)
        for one in check(engine, merchants, is_full=config.full, run_id=context.run.run_id) if is_wanted else ():
            if one.failure:
                failures[one.merchant_id] = one.failure
                context.log.error(f"Merchant {one.merchant_id} could not be compared: {one.failure}")
                continue
            if one.findings:
                context.log.warning(f"Merchant {one.merchant_id}: {one.open_findings} open findings.")
            # Five minutes in which a merchant did nothing are no event: there would be hundreds of them a day.
            is_told = config.full or one.is_full or one.payments or one.subscriptions or one.findings
            if one.merchant_id in chosen and is_told:
                context.log_event(
                    dg.AssetMaterialization(SUBSCRIPTION_MISMATCHES, partition=one.merchant_id, metadata=_metadata(one))
                )
    if failures:
        raise failed_merchants(failures)
    yield from ()


def _is_mapped(engine: "Engine", context: dg.AssetExecutionContext | dg.OpExecutionContext) -> bool:
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.subscription_checks import is_mapped

    with reading(engine) as conn:
        found = is_mapped(conn)
    if not found:
        context.log.warning(NOT_MAPPED)
    return found


def _metadata(one: "MerchantComparison") -> dict[str, Any]:
    return {
        **one.metadata(),
        "classes": _table(
            ("class", "severity", "policy", "findings", "at risk", "currency", "oldest"),
            [
                (
                    line.class_name,
                    line.severity,
                    BY_CODE[line.class_name].policy if line.class_name in BY_CODE else "-",
                    line.findings,
                    float(line.amount_at_risk),
                    line.currency or "unknown",
                    line.first_seen_at.isoformat(timespec="seconds"),
                )
                for line in one.findings[:ROWS_SHOWN]
            ],
        ),
    }


class FixConfig(dg.Config):
    """What to put right, and how much of it."""

    dry_run: bool = Field(
        default=True, description="Show what would be done, and write nothing. The schedule says False."
    )
    merchants: list[str] | None = Field(
        default=None, description="Only these merchants. Default: all; one that is switched to report only has none."
    )
    max_fixes: int | None = Field(
        default=None,
        ge=0,
        le=100_000,
        description="Fixes of one merchant in this run, at most; lowers what its settings say ('loyalty subscriptions "
        "settings'), 100 without any.",
    )
    max_money: float | None = Field(
        default=None,
        ge=0,
        le=1_000_000_000,
        description="Money that the fixes of one merchant may be about in this run, in its currency; lowers what its "
        "settings say, 1000 without any.",
    )


@dg.op(
    description="Applies the fixes that are automatic or approved: each asks again, under lock, whether what it puts "
    "right is still wrong. Running it twice, or two at once, fixes once. Stops at the limits and says so.",
    retry_policy=RETRY_TRANSIENT,
    pool=FIXES_POOL,
)
def fix_subscriptions(context: dg.OpExecutionContext, config: FixConfig, ledger: LedgerDatabase) -> None:
    from decimal import Decimal

    from loyalty_pipelines.db.fix_plans_run import apply_fixes

    failures, stopped, rows = {}, {}, []
    with retrying_only_what_passes(), ledger.engine() as engine:
        if not _is_mapped(engine, context):
            return
        for one in apply_fixes(
            engine,
            config.merchants,
            is_dry_run=config.dry_run,
            actor="fix_subscriptions_job",
            run_id=context.run.run_id,
            max_fixes=config.max_fixes,
            max_money=None if config.max_money is None else Decimal(str(config.max_money)),
        ):
            rows.append({"merchant": one.merchant_id, **one.metadata})
            if one.stopped_by:
                stopped[one.merchant_id] = f"{one.stopped_by} {one.limit or ''}".strip()
            if one.failure:
                failures[one.merchant_id] = one.failure
            log = context.log.error if one.failure else context.log.warning if one.stopped_by else context.log.info
            log(f"Merchant {one.sentence}")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    context.add_output_metadata(
        {
            "dry run": config.dry_run,
            "merchants": len(rows),
            "stopped": dg.MetadataValue.json(stopped),
            "fixes": _table(columns, [tuple(row.get(name, "") for name in columns) for row in rows[:ROWS_SHOWN]]),
        }
    )
    if failures:
        raise failed_merchants(failures)


class SubscriptionReportConfig(dg.Config):
    """Whose report it is."""

    merchant: str | None = Field(
        default=None, description="Only this merchant's: leaves latest.html as it is, and sends no mail. Default: all."
    )


@dg.asset(
    key=SUBSCRIPTION_REPORT,
    group_name="subscriptions",
    deps=[SUBSCRIPTION_MISMATCHES],
    description="Money at risk, for all merchants and each: by class, by age, by day, and what was fixed lately; as "
    "HTML with charts, JSON, and a CSV file per class. A summary goes to the addresses of LOYALTY_ALERT_EMAIL_TO, once "
    "a day.",
    kinds={"postgres", "csv", "html"},
    owners=OWNERS,
    output_required=False,
    retry_policy=RETRY_TRANSIENT,
    pool=SUBSCRIPTIONS_POOL,
)
def subscription_report(
    context: dg.AssetExecutionContext,
    config: SubscriptionReportConfig,
    ledger: LedgerDatabase,
    report_files: Reports,
    alerter: Alerter,
):
    from loyalty_pipelines.db.subscription_report import report_subscriptions
    from loyalty_pipelines.domain.subscription_report import REPORT
    from loyalty_pipelines.report_files.subscriptions import subscription_files
    from loyalty_pipelines.resources.report_store import ReportNotWrittenError, ReportsUrlError
    from loyalty_pipelines.resources.subscription_mail import mail_summary

    run_id, is_for_all = context.run.run_id, config.merchant is None
    with retrying_only_what_passes(), ledger.engine() as engine:
        if not _is_mapped(engine, context):
            return
        try:
            store = report_files.store()
            report = report_subscriptions(engine, config.merchant, timezone=platform_timezone())
            files = subscription_files(report, links=alerter.settings().links, run_id=run_id)
            written = store.write(REPORT, files, on=report.days[-1], run_id=run_id, is_latest=is_for_all)
        except (ReportNotWrittenError, ReportsUrlError) as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        places = {name: path for name, path in written.items() if not name.endswith(".csv")}
        context.log.info(f"The report of {len(report.merchants)} merchants: {', '.join(places.values())}")
        mail = "not sent: the report is of one merchant"
        if is_for_all:
            page = places["subscriptions.html"]
            outcome = mail_summary(engine, report, alerter.settings(), place=page, run_id=run_id)
            mail = outcome.text
            # What a mail server does not take is no reason to write the report once more.
            (context.log.warning if outcome.is_failed else context.log.info)(f"The summary mail was {mail}.")
    yield dg.MaterializeResult(metadata={**_report_metadata(report), "mail": mail, **_paths(places)})


def _report_metadata(report: "SubscriptionReport") -> "Metadata":
    from loyalty_pipelines.domain.money import money_text
    from loyalty_pipelines.domain.subscription_report import ages_together, classes_together, trend_together

    return {
        **{
            f"money at risk {currency}": dg.MetadataValue.float(float(amount))
            for currency, amount in report.money.items()
        },
        "findings": dg.MetadataValue.int(report.open_findings),
        "new since yesterday": dg.MetadataValue.int(report.new_findings),
        "closed since yesterday": dg.MetadataValue.int(report.closed_findings),
        "classes": _table(
            ("class", "severity", "policy", "findings", "new", "at risk", "currency", "oldest"),
            [
                (
                    one.class_name,
                    one.severity,
                    one.policy or "-",
                    one.findings,
                    one.new_findings,
                    float(one.amount),
                    one.currency or "unknown",
                    one.first_seen_at.isoformat(timespec="seconds") if one.first_seen_at else "",
                )
                for one in classes_together(report.classes)
                if one.findings
            ][:ROWS_SHOWN],
        ),
        "ages": _table(
            ("age", "currency", "findings", "at risk"),
            [
                (one.label, one.currency or "unknown", one.findings, float(one.amount))
                for one in ages_together(report.ages)
            ],
        ),
        "trend": _table(
            ("day", "currency", "errors", "warnings", "at risk"),
            [
                (one.day_on.isoformat(), one.currency or "unknown", one.errors, one.warnings, float(one.amount))
                for one in trend_together(report.trend, report.days[-7:])
            ],
        ),
        "merchants": _table(
            ("merchant", "findings", "at risk"),
            [
                (one.merchant.merchant_id, one.findings, money_text(one.money))
                for one in report.by_merchant()[:ROWS_SHOWN]
            ],
        ),
    }


def _paths(places: dict[str, str]) -> "Metadata":
    return {
        name: dg.MetadataValue.url(path) if "://" in path else dg.MetadataValue.path(path)
        for name, path in places.items()
    }


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> dg.TableMetadataValue:
    """Return a metadata table; a column is of the kind of its first value."""
    kinds = {int: "int", float: "float"}
    first = rows[0] if rows else ("",) * len(columns)
    return dg.MetadataValue.table(
        records=[dg.TableRecord(dict(zip(columns, row, strict=True))) for row in rows],
        schema=dg.TableSchema(
            columns=[
                dg.TableColumn(name, kinds.get(type(value), "string"))
                for name, value in zip(columns, first, strict=True)
            ]
        ),
    )
