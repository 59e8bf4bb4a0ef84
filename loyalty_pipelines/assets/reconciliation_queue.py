"""Point updates that failed, tried again."""

from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from loyalty_pipelines.assets.awards import (
    OWNERS,
    RETRY_TRANSIENT,
    failed_merchants,
    merchants_table,
    retrying_only_what_passes,
)
from loyalty_pipelines.assets.shop import MERCHANTS_TABLE, ORDERS, REFUNDS
from loyalty_pipelines.resources.database import LedgerDatabase

if TYPE_CHECKING:
    from loyalty_pipelines.domain.queue import QueueReport

RECONCILIATION_QUEUE = dg.AssetKey(["loyalty", "reconciliation_queue"])
# Of its own, so that a long queue keeps no award waiting.
QUEUE_POOL = "reconciliation_queue"
SHOWN_MERCHANTS = 100


class QueueConfig(dg.Config):
    """How to try again."""

    max_tries: int = Field(
        default=8, ge=1, le=1_000, description="An item that failed this often is parked, and its customer with it."
    )
    first_wait_seconds: int = Field(
        default=60, ge=1, le=86_400, description="How long an item waits after its first try; doubles with every try."
    )
    longest_wait_seconds: int = Field(
        default=6 * 60 * 60, ge=1, le=604_800, description="No item waits longer than this for its next try."
    )
    page_size: int = Field(
        default=50, ge=1, le=1_000, description="Items per transaction; their accounts stay locked that long."
    )


@dg.asset(
    key=RECONCILIATION_QUEUE,
    group_name="reconciliation_queue",
    deps=[ORDERS, REFUNDS, MERCHANTS_TABLE],
    description="Point updates that failed: calls that the shop reported, points that a paid order still owes, orders "
    "that could not be decided. reconciliation_queue_sensor starts it when some are due. An item is resolved in the "
    "transaction that applies it; one whose effect is in the ledger already is only closed.",
    kinds={"postgres"},
    owners=OWNERS,
    retry_policy=RETRY_TRANSIENT,
    pool=QUEUE_POOL,
)
def reconciliation_queue(context: dg.AssetExecutionContext, config: QueueConfig, ledger: LedgerDatabase) -> None:
    from loyalty_pipelines.db.queue_run import QueueOptions, drain_queue
    from loyalty_pipelines.domain.queue import RetryPolicy

    policy = RetryPolicy(
        max_tries=config.max_tries,
        first_wait=timedelta(seconds=config.first_wait_seconds),
        longest_wait=timedelta(seconds=config.longest_wait_seconds),
    )
    with retrying_only_what_passes(), ledger.engine() as engine:
        report = drain_queue(
            engine,
            options=QueueOptions(page_size=config.page_size, policy=policy),
            actor="reconciliation_queue",
            run_id=context.run.run_id,
        )
    context.add_output_metadata(report_metadata(report))
    if report.failures:
        # The merchants that are done are shown all the same: a Failure alone would hide them.
        context.log_event(dg.AssetMaterialization(RECONCILIATION_QUEUE, metadata=report_metadata(report)))
        raise failed_merchants(report.failures)


TABLE_COLUMNS = ("applied", "found_done", "void", "failed", "parked", "orders", "orders_waiting", "orders_parked")


def report_metadata(report: "QueueReport") -> dict[str, dg.MetadataValue]:
    """Return what a run did: totals that the UI plots over time, and a table of the merchants it touched."""
    touched = sorted(report.merchants.values(), key=lambda tries: -tries.tried)
    return {
        **{name.replace("_", " "): dg.MetadataValue.int(report.total(name)) for name in TABLE_COLUMNS},
        "by merchant": merchants_table(touched[:SHOWN_MERCHANTS], TABLE_COLUMNS),
    }
