"""Points for paid orders: live from the inbox, and per merchant by comparing every order again."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from loyalty_pipelines.assets.shop import MERCHANTS_TABLE, ORDERS, REFUNDS
from loyalty_pipelines.domain.awards import DEFAULT_BATCH_SIZE
from loyalty_pipelines.partitions import MERCHANTS
from loyalty_pipelines.resources.database import LedgerDatabase

if TYPE_CHECKING:
    from loyalty_pipelines.domain.awards import AwardReport, MerchantAwards
    from loyalty_pipelines.domain.notifications import MerchantMails
    from loyalty_pipelines.domain.queue import MerchantTries

LIVE_AWARDS = dg.AssetKey(["loyalty", "live_awards"])
AWARDED_POINTS = dg.AssetKey(["loyalty", "awarded_points"])

OWNERS = ["team:loyalty"]
# A restart of PostgreSQL is over after some seconds; batches retry within the step first, and finished batches stay.
RETRY_TRANSIENT = dg.RetryPolicy(max_retries=5, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
# Pools of their own: sweeps that take their time must not keep live awards waiting.
LIVE_POOL = "live_awards"
SWEEP_POOL = "sweeps"


@contextmanager
def retrying_only_what_passes() -> Iterator[None]:
    """Let transient database errors out, to be retried, and turn everything else into a Failure that is not."""
    from sqlalchemy.exc import DBAPIError

    from loyalty_pipelines.db.drain import short_text
    from loyalty_pipelines.db.engine import is_transient
    from loyalty_pipelines.domain.errors import LoyaltyError

    try:
        yield
    except dg.Failure:
        raise
    except (DBAPIError, LoyaltyError) as error:
        if is_transient(error):
            raise
        raise dg.Failure(
            f"{short_text(error)} (retrying would not help; 'loyalty status' says what to do)", allow_retries=False
        ) from error
    except Exception as error:
        raise dg.Failure(
            f"Unexpected {type(error).__name__}: {error}. Please report it.", allow_retries=False
        ) from error


class AwardConfig(dg.Config):
    """How to award."""

    batch_size: int = Field(
        default=DEFAULT_BATCH_SIZE,
        ge=1,
        le=100_000,
        description="Orders per transaction; accounts stay locked that long.",
    )


class SweepConfig(AwardConfig):
    """Which orders to compare again."""

    paid_from: str | None = Field(
        default=None,
        description="Only orders paid at or after this instant, e.g. 2026-01-31T00:00:00+01:00. Default: all.",
    )
    paid_to: str | None = Field(
        default=None, description="Only orders paid before this instant, with its zone. Default: all."
    )
    dry_run: bool = Field(default=False, description="Count what would be awarded, and write nothing.")


@dg.asset(
    key=LIVE_AWARDS,
    group_name="awards",
    deps=[ORDERS, REFUNDS, MERCHANTS_TABLE],
    description="Points for orders that were paid or changed just now. paid_orders_sensor starts it when something "
    "waits in loyalty.order_inbox; one run drains the inbox for all merchants. Running it twice awards nothing twice.",
    kinds={"postgres"},
    owners=OWNERS,
    retry_policy=RETRY_TRANSIENT,
    pool=LIVE_POOL,
)
def live_awards(context: dg.AssetExecutionContext, config: AwardConfig, ledger: LedgerDatabase) -> None:
    from loyalty_pipelines.db.drain import DrainOptions, drain
    from loyalty_pipelines.db.merchant_jobs_run import note_merchants

    options = DrainOptions(batch_size=config.batch_size, connections=ledger.connections)
    with retrying_only_what_passes(), ledger.engine() as engine:
        report = drain(engine, options=options, actor="live_awards", run_id=context.run.run_id)
        # Who was served is in loyalty.award_batches.
        note_merchants(engine, job="live_awards", served=(), failures=report.failures, run_id=context.run.run_id)
    _log_warnings(context, report)
    context.add_output_metadata(report_metadata(report))
    if report.failures:
        # The merchants that are done are shown all the same: a Failure alone would hide them.
        context.log_event(dg.AssetMaterialization(LIVE_AWARDS, metadata=report_metadata(report)))
        raise failed_merchants(report.failures)


# A multi-asset, because only that may log a materialization per merchant as it is done instead of one for all of them
# at the end: skippable, it doesn't have to return any.
@dg.multi_asset(
    name="awarded_points",
    specs=[
        dg.AssetSpec(
            AWARDED_POINTS,
            group_name="awards",
            deps=[ORDERS, REFUNDS, MERCHANTS_TABLE],
            description="Points of every order of a merchant, compared again with what the order deserves: the hourly "
            "sweep, and backfills on demand. Finds what no trigger saw. dry_run=True only counts.",
            kinds={"postgres"},
            owners=OWNERS,
            partitions_def=MERCHANTS,
            skippable=True,
        )
    ],
    backfill_policy=dg.BackfillPolicy.single_run(),
    retry_policy=RETRY_TRANSIENT,
    pool=SWEEP_POOL,
)
def awarded_points(context: dg.AssetExecutionContext, config: SweepConfig, ledger: LedgerDatabase):
    from loyalty_pipelines.db.sweep_run import sweep_merchants

    paid_from, paid_to = instant("paid_from", config.paid_from), instant("paid_to", config.paid_to)
    failures = {}
    with retrying_only_what_passes(), ledger.engine() as engine:
        for swept in sweep_merchants(
            engine,
            context.partition_keys,
            paid_from=paid_from,
            paid_to=paid_to,
            is_dry_run=config.dry_run,
            batch_size=config.batch_size,
            run_id=context.run.run_id,
        ):
            if swept.failure:
                failures[swept.merchant_id] = swept.failure
                context.log.error(f"Merchant {swept.merchant_id}: {swept.failure}")
                continue
            event = dg.AssetObservation if config.dry_run else dg.AssetMaterialization
            context.log_event(event(AWARDED_POINTS, partition=swept.merchant_id, metadata=swept.metadata()))
    if failures:
        raise failed_merchants(failures)
    # A generator without an output: everything was logged above.
    yield from ()


def instant(name: str, text: str | None) -> datetime | None:
    """Parse a configured instant; a date without a zone means something else to every merchant, so it is refused."""
    if text is None:
        return None
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        value = None
    if value is None or value.tzinfo is None:
        raise dg.Failure(
            f"{name} is {text!r}: expected an instant with its zone, for example 2026-01-31T00:00:00+01:00.",
            allow_retries=False,
        )
    return value


def failed_merchants(failures: Mapping[str, str]) -> dg.Failure:
    """Return the Failure that names the merchants that failed, each with its reason; the others are committed."""
    return dg.Failure(
        f"{len(failures)} merchant{'s' if len(failures) > 1 else ''} failed, all others are done: "
        + "; ".join(f"{merchant_id}: {reason}" for merchant_id, reason in list(failures.items())[:10]),
        metadata={"failed merchants": dg.MetadataValue.json(dict(failures))},
        allow_retries=False,
    )


def _log_warnings(context: dg.AssetExecutionContext, report: "AwardReport") -> None:
    missing = report.total("orders_missing")
    if missing:
        context.log.warning(f"{missing} orders were deleted from the shop before they were awarded.")
    for merchant_id, awards in report.merchants.items():
        for warning in awards.warnings:
            context.log.warning(f"Merchant {merchant_id}: {warning}.")


def report_metadata(report: "AwardReport") -> dict[str, dg.MetadataValue]:
    """Return what a run did: totals that the UI plots over time, and a table of the merchants it touched."""
    touched = sorted(report.merchants.values(), key=lambda awards: -awards.rows_claimed)
    return {
        "orders awarded": dg.MetadataValue.int(report.total("orders_changed")),
        "points": dg.MetadataValue.int(report.total("points_changed")),
        "orders unchanged": dg.MetadataValue.int(report.total("orders_unchanged")),
        "orders queued": dg.MetadataValue.int(report.total("orders_queued")),
        "orders skipped": dg.MetadataValue.int(report.total("orders_skipped")),
        "customers enrolled": dg.MetadataValue.int(report.total("accounts_enrolled")),
        "welcome bonus points": dg.MetadataValue.int(report.total("bonus_points")),
        "merchants": dg.MetadataValue.int(len(report.merchants)),
        "by merchant": merchants_table(touched[:100], TABLE_COLUMNS),
    }


TABLE_COLUMNS = ("orders_changed", "points_changed", "orders_unchanged", "orders_queued", "orders_skipped")


def merchants_table(
    merchants: "Sequence[MerchantAwards] | Sequence[MerchantTries] | Sequence[MerchantMails]", names: Sequence[str]
) -> dg.TableMetadataValue:
    """Return one row per merchant for the metadata of a run, a column for each counter of `names`.

    At most some hundred rows: events are kept for weeks.
    """
    columns = [dg.TableColumn("merchant", "string")]
    columns += [dg.TableColumn(name.replace("_", " "), "int") for name in names]
    return dg.MetadataValue.table(
        records=[
            dg.TableRecord(
                {"merchant": one.merchant_id} | {name.replace("_", " "): getattr(one, name) for name in names}
            )
            for one in merchants
        ],
        schema=dg.TableSchema(columns=columns),
    )
