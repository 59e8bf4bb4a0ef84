"""The rule of every sensor that drains something: at most one run, and none right after one that failed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from loyalty_pipelines.jobs import IN_FLIGHT, LIVE_MAX_RUNTIME_SECONDS

PAUSE_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class RunInFlight:
    """A run that has not ended, and when it was requested."""

    run_id: str
    requested_at: datetime


def decide(
    *,
    is_pending: bool,
    in_flight: Sequence[RunInFlight],
    failed_at: datetime | None = None,
    as_of: datetime,
    max_runtime_seconds: int = LIVE_MAX_RUNTIME_SECONDS,
) -> dg.RunRequest | dg.SkipReason:
    """Decide whether to start a run: at most one at a time, unless that one is older than it may get.

    After a run that failed (`failed_at`: when the newest one did) it waits a minute: what a merchant or a database
    can't do now, it can't do in five seconds either, and every run costs events.
    No run key: a used key would never run again, not even after a failure. What was done is in PostgreSQL.
    """
    if not is_pending:
        return dg.SkipReason("Nothing waits.")
    limit = as_of - timedelta(seconds=max_runtime_seconds)
    alive = [run for run in in_flight if run.requested_at > limit]
    if alive:
        return dg.SkipReason(f"Run {alive[0].run_id} is at work already.")
    if failed_at and failed_at > as_of - timedelta(seconds=PAUSE_SECONDS):
        return dg.SkipReason("The last run failed less than a minute ago: see its log.")
    return dg.RunRequest()


def at_most_one_run(
    instance: dg.DagsterInstance,
    job_name: str,
    *,
    is_pending: bool,
    max_runtime_seconds: int = LIVE_MAX_RUNTIME_SECONDS,
) -> dg.RunRequest | dg.SkipReason:
    """Decide with the runs of a job as they are now; where nothing waits, without asking Dagster's database."""
    now = datetime.now(UTC)
    if not is_pending:
        return decide(is_pending=False, in_flight=[], as_of=now)
    return decide(
        is_pending=True,
        in_flight=_in_flight(instance, job_name),
        failed_at=_failed_at(instance, job_name),
        as_of=now,
        max_runtime_seconds=max_runtime_seconds,
    )


def _in_flight(instance: dg.DagsterInstance, job_name: str) -> list[RunInFlight]:
    records = instance.get_run_records(dg.RunsFilter(job_name=job_name, statuses=IN_FLIGHT), limit=10)
    return [
        RunInFlight(run_id=record.dagster_run.run_id, requested_at=record.create_timestamp.astimezone(UTC))
        for record in records
    ]


def _failed_at(instance: dg.DagsterInstance, job_name: str) -> datetime | None:
    """Return when the newest run failed; None when it succeeded, was cancelled or has not ended."""
    records = instance.get_run_records(dg.RunsFilter(job_name=job_name), limit=1)
    if not records or records[0].dagster_run.status != dg.DagsterRunStatus.FAILURE or not records[0].end_time:
        return None
    return datetime.fromtimestamp(records[0].end_time, UTC)
