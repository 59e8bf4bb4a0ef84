"""Little waits in the reconciliation queue, and not for long."""

from datetime import timedelta

import dagster as dg
from pydantic import Field

from loyalty_pipelines.assets.reconciliation_queue import RECONCILIATION_QUEUE
from loyalty_pipelines.checks.runbooks import described
from loyalty_pipelines.checks.tables import SHOWN, table
from loyalty_pipelines.domain.queue import FAIL_AFTER, WARN_AFTER, judge_queue
from loyalty_pipelines.resources.database import LedgerDatabase


class QueueAgeConfig(dg.Config):
    """How long a point update may wait in the queue."""

    warn_after_minutes: int = Field(
        default=int(WARN_AFTER.total_seconds() // 60),
        ge=1,
        le=100_000,
        description="An item older than this turns the check yellow; so does a parked one.",
    )
    fail_after_hours: int = Field(
        default=int(FAIL_AFTER.total_seconds() // 3600),
        ge=1,
        le=10_000,
        description="An item older than this turns it red.",
    )


@dg.asset_check(
    asset=RECONCILIATION_QUEUE,
    blocking=True,
    description=described(
        "No point update waits long in the reconciliation queue, and none is parked. Yellow: 'loyalty queue "
        "list' names the items and reasons; correct their cause, then 'loyalty queue retry NUMBER', or settle one with "
        "'loyalty queue resolve NUMBER --reason TEXT'. Red: customers have waited for their points for a day.",
        "reconciliation-queue",
        "few_updates_wait_in_the_queue is yellow or red",
    ),
)
def few_updates_wait_in_the_queue(config: QueueAgeConfig, ledger: LedgerDatabase) -> dg.AssetCheckResult:
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.queue import queue_summary

    with ledger.engine() as engine, reading(engine) as conn:
        found = judge_queue(
            queue_summary(conn),
            warn_after=timedelta(minutes=config.warn_after_minutes),
            fail_after=timedelta(hours=config.fail_after_hours),
        )
    return dg.AssetCheckResult(
        passed=not found.is_red and not found.is_yellow,
        severity=dg.AssetCheckSeverity.ERROR if found.is_red else dg.AssetCheckSeverity.WARN,
        description=found.description,
        metadata={
            "unresolved": found.items,
            "oldest in seconds": found.oldest_seconds,
            "points at stake": found.points_at_stake,
            "parked": found.parked,
            "merchants": table(
                found.waiting[:SHOWN], ("merchant_id", "items", "oldest_seconds", "points_at_stake", "parked")
            ),
        },
    )
