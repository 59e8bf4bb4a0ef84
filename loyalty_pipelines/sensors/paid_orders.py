"""Newly paid orders: starts one run while something waits in the inbox."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from loyalty_pipelines.jobs import IN_FLIGHT, LIVE_MAX_RUNTIME_SECONDS, award_points_job
from loyalty_pipelines.resources.database import LedgerDatabase

INTERVAL_SECONDS = 5
PAUSE_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class RunInFlight:
    """A run that has not ended, and when it was requested."""

    run_id: str
    requested_at: datetime


def decide(
    *, is_pending: bool, in_flight: Sequence[RunInFlight], failed_at: datetime | None = None, as_of: datetime
) -> dg.RunRequest | dg.SkipReason:
    """Decide whether to start a run: at most one at a time, unless that one is older than it may get.

    After a run that failed (`failed_at`: when the newest one did) it waits a minute: what a merchant or a database
    can't do now, it can't do in five seconds either, and every run costs events.
    No run key: a used key would never run again, not even after a failure. What was awarded is in PostgreSQL.
    """
    if not is_pending:
        return dg.SkipReason("Nothing waits in the inbox.")
    limit = as_of - timedelta(seconds=LIVE_MAX_RUNTIME_SECONDS)
    alive = [run for run in in_flight if run.requested_at > limit]
    if alive:
        return dg.SkipReason(f"Run {alive[0].run_id} is awarding already.")
    if failed_at and failed_at > as_of - timedelta(seconds=PAUSE_SECONDS):
        return dg.SkipReason("The last run failed less than a minute ago: see its log.")
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
    from loyalty_pipelines.domain.source_mapping import NoMappingError

    now = datetime.now(UTC)
    try:
        with ledger.engine() as engine:
            is_pending = look_for_orders(engine)
    except NoMappingError as nothing_to_do:
        return dg.SkipReason(str(nothing_to_do))
    if not is_pending:
        return decide(is_pending=False, in_flight=[], as_of=now)
    return decide(
        is_pending=True, in_flight=_in_flight(context.instance), failed_at=_failed_at(context.instance), as_of=now
    )


def _in_flight(instance: dg.DagsterInstance) -> list[RunInFlight]:
    records = instance.get_run_records(dg.RunsFilter(job_name=award_points_job.name, statuses=IN_FLIGHT), limit=10)
    return [
        RunInFlight(run_id=record.dagster_run.run_id, requested_at=record.create_timestamp.astimezone(UTC))
        for record in records
    ]


def _failed_at(instance: dg.DagsterInstance) -> datetime | None:
    """Return when the newest run failed; None when it succeeded, was cancelled or has not ended."""
    records = instance.get_run_records(dg.RunsFilter(job_name=award_points_job.name), limit=1)
    if not records or records[0].dagster_run.status != dg.DagsterRunStatus.FAILURE or not records[0].end_time:
        return None
    return datetime.fromtimestamp(records[0].end_time, UTC)
