"""Reports for people: what is owed in points, how points are redeemed, what happened lately."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
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
from loyalty_pipelines.assets.expiry import EXPIRED_POINTS
from loyalty_pipelines.assets.holds import RELEASED_HOLDS
from loyalty_pipelines.domain.activity import (
    DEFAULT_ACTIVITY_DAYS,
    DEFAULT_DAYS,
    DEFAULT_ENTRIES,
    MAX_ENTRIES,
    MAX_PERIODS,
)
from loyalty_pipelines.domain.liability import DEFAULT_MONTHS, MAX_MONTHS
from loyalty_pipelines.partitions import MERCHANTS
from loyalty_pipelines.platform_time import platform_timezone
from loyalty_pipelines.resources.database import LedgerDatabase
from loyalty_pipelines.resources.reports import Reports

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from loyalty_pipelines.domain.activity import ActivityReport, RedemptionPeriod, RedemptionReport
    from loyalty_pipelines.domain.liability import LiabilityReport, MerchantLiability
    from loyalty_pipelines.report_files.tables import ReportFile
    from loyalty_pipelines.resources.report_store import ReportStore

    Metadata = dict[str, dg.MetadataValue]

POINTS_LIABILITY = dg.AssetKey(["loyalty", "points_liability"])
REDEMPTION_STATS = dg.AssetKey(["loyalty", "redemption_stats"])
RECENT_ACTIVITY = dg.AssetKey(["loyalty", "recent_activity"])
REPORTS_POOL = "reports"
# Rows of a table in an event: events are kept for weeks, the files have all rows.
MONTHS_SHOWN = 6


class ReportsConfig(dg.Config):
    """How far back reports go, and whose they are."""

    everybody: bool = Field(
        default=False,
        description="All merchants that the shop or the ledger has, also those without a partition: that left the "
        "shop, or whose id Dagster refuses. The schedule says True. latest.html leads to such a run only.",
    )
    months: int = Field(default=DEFAULT_MONTHS, ge=1, le=MAX_MONTHS, description="Months before this one.")
    days: int = Field(default=DEFAULT_DAYS, ge=1, le=MAX_PERIODS, description="Days of redemptions before today.")
    entries: int = Field(
        default=DEFAULT_ENTRIES, ge=1, le=MAX_ENTRIES, description="Newest entries of each merchant, at most."
    )
    activity_days: int = Field(
        default=DEFAULT_ACTIVITY_DAYS, ge=1, le=MAX_PERIODS, description="Only entries of so many days."
    )


@dataclass(frozen=True, kw_only=True)
class _Computed:
    """A report: which merchants are in it, what the UI shows of each, and how its files are made."""

    report: "LiabilityReport | RedemptionReport | ActivityReport"
    metadata: "Mapping[str, Metadata]"
    files: "Callable[[], Sequence[ReportFile]]"


def _spec(key: dg.AssetKey, description: str, deps: list[dg.AssetKey]) -> dg.AssetSpec:
    return dg.AssetSpec(
        key,
        group_name="reports",
        deps=deps,
        description=description,
        kinds={"postgres", "csv", "html"},
        owners=OWNERS,
        partitions_def=MERCHANTS,
        skippable=True,
        freshness_policy=NIGHTLY if key == POINTS_LIABILITY else None,
    )


WRITERS = [LIVE_AWARDS, AWARDED_POINTS, EXPIRED_POINTS, RELEASED_HOLDS]


# One step for all merchants, as for expiry: a report reads the ledger once for all of them.
@dg.multi_asset(
    name="reports",
    specs=[
        _spec(
            POINTS_LIABILITY,
            "What a merchant owes its customers in points, month by month: opening + imported + earned + bonus + "
            "restored - spent - expired - reversed + adjusted = closing, times the value of a point; and in which "
            "month points go if nobody is active. Equals the sum of the balances to the point.",
            WRITERS,
        ),
        _spec(
            REDEMPTION_STATS,
            "How customers of a merchant spend their points, by day and by month: redemptions, customers, points, what "
            "they were worth then, their share of what was earned, and reservations that came to nothing.",
            WRITERS,
        ),
        _spec(
            RECENT_ACTIVITY,
            "The newest ledger entries of a merchant with kind, points, reference, customer's id, actor and run; no "
            "names, no addresses.",
            WRITERS,
        ),
    ],
    can_subset=True,
    backfill_policy=dg.BackfillPolicy.single_run(),
    retry_policy=RETRY_TRANSIENT,
    pool=REPORTS_POOL,
)
def reports(context: dg.AssetExecutionContext, config: ReportsConfig, ledger: LedgerDatabase, report_files: Reports):
    from loyalty_pipelines.resources.report_store import ReportsUrlError

    failures: dict[str, str] = {}
    try:
        # Said before the ledger is read.
        store = report_files.store()
    except ReportsUrlError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    with retrying_only_what_passes(), ledger.engine() as engine:
        for key, compute in COMPUTE.items():
            if key in context.selected_asset_keys:
                failures |= _report(context, engine, store, key, compute, config)
    if failures:
        raise failed_merchants(failures)
    # A generator without an output: everything was logged above.
    yield from ()


def _report(
    context: dg.AssetExecutionContext,
    engine: "Engine",
    store: "ReportStore",
    key: dg.AssetKey,
    compute: "Callable[[Engine, Sequence[str] | None, ReportsConfig, str], _Computed]",
    config: ReportsConfig,
) -> dict[str, str]:
    """Compute, write and log one report; return the merchants that are not in it, with the reasons."""
    from loyalty_pipelines.db.merchant_jobs_run import note_merchants
    from loyalty_pipelines.resources.report_store import ReportNotWrittenError

    run_id, name = context.run.run_id, key.path[-1]
    computed = compute(engine, None if config.everybody else context.partition_keys, config, run_id)
    done, failures = sorted(computed.metadata), dict(computed.report.failures)
    try:
        written = store.write(
            name,
            computed.files(),
            on=computed.report.as_of.astimezone(platform_timezone()).date(),
            run_id=run_id,
            is_latest=config.everybody,
        )
    except ReportNotWrittenError as error:
        note_merchants(engine, job=name, served=[], failures=dict.fromkeys(done, str(error)) | failures, run_id=run_id)
        raise dg.Failure(str(error), allow_retries=False) from error
    note_merchants(engine, job=name, served=done, failures=failures, run_id=run_id)
    places = {file: _place(path) for file, path in written.items()}
    context.log.info(f"{name} of {len(done)} merchants: {', '.join(written.values())}")
    for merchant_id, reason in failures.items():
        context.log.error(f"Merchant {merchant_id}: {reason}")
    for merchant_id in context.partition_keys:
        if merchant_id in computed.metadata:
            context.log_event(
                dg.AssetMaterialization(
                    key, partition=merchant_id, metadata={**computed.metadata[merchant_id], **places}
                )
            )
    return {merchant_id: f"{name}: {reason}" for merchant_id, reason in failures.items()}


def _place(path: str) -> dg.MetadataValue:
    return dg.MetadataValue.url(path) if "://" in path else dg.MetadataValue.path(path)


def _liability(engine: "Engine", merchants: Sequence[str] | None, config: ReportsConfig, run_id: str) -> _Computed:
    from loyalty_pipelines.db.reports_run import report_liability
    from loyalty_pipelines.report_files.liability import liability_files

    report = report_liability(engine, merchants, months=config.months)
    return _Computed(
        report=report,
        metadata={one.merchant_id: _liability_metadata(one) for one in report.merchants},
        files=lambda: liability_files(report, run_id=run_id),
    )


def _redemptions(engine: "Engine", merchants: Sequence[str] | None, config: ReportsConfig, run_id: str) -> _Computed:
    from loyalty_pipelines.db.reports_run import report_redemptions
    from loyalty_pipelines.report_files.activity import redemption_files

    report = report_redemptions(engine, merchants, days=config.days, months=config.months)
    months = _by_merchant(report.months)
    metadata = {
        merchant_id: _redemption_metadata(months.get(merchant_id, []), month_on)
        for merchant_id, month_on in report.present_months.items()
    }
    return _Computed(report=report, metadata=metadata, files=lambda: redemption_files(report, run_id=run_id))


def _activity(engine: "Engine", merchants: Sequence[str] | None, config: ReportsConfig, run_id: str) -> _Computed:
    from loyalty_pipelines.db.reports_run import report_activity
    from loyalty_pipelines.report_files.activity import activity_files

    report = report_activity(engine, merchants, limit=config.entries, days=config.activity_days)
    entries = _by_merchant(report.entries)
    metadata: dict[str, Metadata] = {}
    for merchant_id in report.merchant_ids:
        newest = entries.get(merchant_id, [])
        # Without the customers: a shop's id may be an address, and events are seen by more people than files.
        metadata[merchant_id] = {
            "entries": dg.MetadataValue.int(len(newest)),
            "points added": dg.MetadataValue.int(sum(max(one.points, 0) for one in newest)),
            "points taken": dg.MetadataValue.int(-sum(min(one.points, 0) for one in newest)),
        }
        if newest:
            metadata[merchant_id]["newest"] = dg.MetadataValue.timestamp(newest[0].recorded_at)
    return _Computed(report=report, metadata=metadata, files=lambda: activity_files(report, run_id=run_id))


# In the order in which they are made.
COMPUTE = {POINTS_LIABILITY: _liability, REDEMPTION_STATS: _redemptions, RECENT_ACTIVITY: _activity}


def _by_merchant(rows: Sequence[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row.merchant_id, []).append(row)
    return found


def _liability_metadata(one: "MerchantLiability") -> "Metadata":
    from loyalty_pipelines.domain.liability import COLUMNS

    present = one.months[-1]
    found: Metadata = {
        "closing points": dg.MetadataValue.int(one.closing),
        "difference to balances": dg.MetadataValue.int(one.difference),
        "accounts": dg.MetadataValue.int(one.accounts),
        **{f"{name} this month": dg.MetadataValue.int(getattr(present, name)) for name in COLUMNS},
        "overdue": dg.MetadataValue.int(one.line("overdue").points),
        "held": dg.MetadataValue.int(one.line("held").points),
        "months": _table(
            ("month", "opening", *COLUMNS, "closing"),
            [
                (f"{month.month_on:%Y-%m}", month.opening, *(getattr(month, name) for name in COLUMNS), month.closing)
                for month in reversed(one.months[-MONTHS_SHOWN:])
            ],
        ),
        "points that go": _table(("when", "points"), [(line.label, line.points) for line in one.calendar]),
        "currency": dg.MetadataValue.text(one.merchant.currency or "unknown"),
    }
    if one.amount is not None:
        # A float is what the UI plots; the exact amount is in the files.
        found["worth"] = dg.MetadataValue.float(float(one.amount))
    if one.breakage is not None:
        found["breakage"] = dg.MetadataValue.float(float(one.breakage))
    return found


def _redemption_metadata(months: "Sequence[RedemptionPeriod]", month_on: date) -> "Metadata":
    newest = next((one for one in months if one.period_on == month_on), None)
    found: Metadata = {
        "redemptions this month": dg.MetadataValue.int(newest.redemptions if newest else 0),
        "points this month": dg.MetadataValue.int(newest.spent_points if newest else 0),
        "customers this month": dg.MetadataValue.int(newest.customers if newest else 0),
        "months": _table(
            ("month", "redemptions", "customers", "points", "given back", "earned"),
            [
                (
                    f"{one.period_on:%Y-%m}",
                    one.redemptions,
                    one.customers,
                    one.spent_points,
                    one.restored_points,
                    one.earned_points,
                )
                for one in reversed(months[-MONTHS_SHOWN:])
            ],
        ),
    }
    if newest and newest.share_of_earned is not None:
        found["redeemed of earned this month"] = dg.MetadataValue.float(float(newest.share_of_earned))
    return found


def _table(columns: Sequence[str], rows: Sequence[Sequence[str | int]]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table(
        records=[dg.TableRecord(dict(zip(columns, row, strict=True))) for row in rows],
        schema=dg.TableSchema(
            columns=[dg.TableColumn(name, "string" if number == 0 else "int") for number, name in enumerate(columns)]
        ),
    )
