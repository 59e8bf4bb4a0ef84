"""Little waits in the reconciliation queue, and not for long."""

import dagster as dg
from pydantic import Field

from loyalty_pipelines.assets.reconciliation_queue import RECONCILIATION_QUEUE
from loyalty_pipelines.checks.tables import SHOWN, table
from loyalty_pipelines.resources.database import LedgerDatabase


class QueueAgeConfig(dg.Config):
    """How long a point update may wait in the queue."""

    warn_after_minutes: int = Field(
        default=60,
        ge=1,
        le=100_000,
        description="An item older than this turns the check yellow; so does a parked one.",
    )
    fail_after_hours: int = Field(default=24, ge=1, le=10_000, description="An item older than this turns it red.")


@dg.asset_check(
    asset=RECONCILIATION_QUEUE,
    blocking=True,
    description="No point update waits long in the reconciliation queue, and none is parked. Yellow: 'loyalty queue "
    "list' names the items and reasons; correct their cause, then 'loyalty queue retry NUMBER', or settle one with "
    "'loyalty queue resolve NUMBER --reason TEXT'. Red: customers have waited for their points for a day. What each "
    "reason asks for is in docs/runbooks/reconciliation-queue.md.",
)
def few_updates_wait_in_the_queue(config: QueueAgeConfig, ledger: LedgerDatabase) -> dg.AssetCheckResult:
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.queue import queue_summary

    with ledger.engine() as engine, reading(engine) as conn:
        waiting = queue_summary(conn)
    oldest = max((found.oldest_seconds for found in waiting), default=0.0)
    items, parked = sum(found.items for found in waiting), sum(found.parked for found in waiting)
    is_red = oldest > config.fail_after_hours * 3600
    return dg.AssetCheckResult(
        passed=not is_red and not parked and oldest <= config.warn_after_minutes * 60,
        severity=dg.AssetCheckSeverity.ERROR if is_red else dg.AssetCheckSeverity.WARN,
        description=f"{items} point updates wait, the oldest for {oldest / 60:.1f} minutes; {parked} are parked.",
        metadata={
            "unresolved": items,
            "oldest in seconds": oldest,
            "points at stake": sum(found.points_at_stake for found in waiting),
            "parked": parked,
            "merchants": table(
                waiting[:SHOWN], ("merchant_id", "items", "oldest_seconds", "points_at_stake", "parked")
            ),
        },
    )
