"""Newly paid orders: starts one run while something waits in the inbox."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from loyalty_pipelines.jobs import LIVE_MAX_RUNTIME_SECONDS, award_points_job
from loyalty_pipelines.resources.database import LedgerDatabase

INTERVAL_SECONDS = 5
IN_FLIGHT = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True, kw_only=True)
class RunInFlight:
    """A run that has not ended, and when it was requested."""

    run_id: str
    requested_at: datetime


def decide(*, is_pending: bool, in_flight: Sequence[RunInFlight], as_of: datetime) -> dg.RunRequest | dg.SkipReason:
    """Decide whether to start a run: at most one at a time, unless that one is older than it may get.

    No run key: a used key would never run again, not even after a failure. What was awarded is in PostgreSQL.
    """
    if not is_pending:
        return dg.SkipReason("Nothing waits in the inbox.")
    limit = as_of - timedelta(seconds=LIVE_MAX_RUNTIME_SECONDS)
    alive = [run for run in in_flight if run.requested_at > limit]
    if alive:
        return dg.SkipReason(f"Run {alive[0].run_id} is awarding already.")
    return dg.RunRequest()


@dg.sensor(
    job=award_points_job,
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Watches for paid and changed orders, and starts award_points_job when some wait in the inbox. "
    "In poll mode it looks for changes itself. At most one run at a time.",
)
def paid_orders_sensor(context: dg.SensorEvaluationContext, ledger: LedgerDatabase):
    from loyalty_pipelines.db.capture_run import look_for_orders

    now = datetime.now(UTC)
    with ledger.engine() as engine:
        is_pending = look_for_orders(engine, as_of=now)
    return decide(is_pending=is_pending, in_flight=_in_flight(context.instance) if is_pending else [], as_of=now)


def _in_flight(instance: dg.DagsterInstance) -> list[RunInFlight]:
    records = instance.get_run_records(dg.RunsFilter(job_name=award_points_job.name, statuses=IN_FLIGHT), limit=10)
    return [
        RunInFlight(run_id=record.dagster_run.run_id, requested_at=record.create_timestamp.astimezone(UTC))
        for record in records
    ]
