"""What runs by the clock."""

import dagster as dg

from loyalty_pipelines.jobs import (
    IN_FLIGHT,
    award_checks_job,
    prune_history_job,
    release_holds_job,
    sweep_points_job,
)
from loyalty_pipelines.partitions import MERCHANT
from loyalty_pipelines.resources.database import LedgerDatabase

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


@dg.schedule(
    job=sweep_points_job,
    cron_schedule="5 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every hour, all merchants in one run: finds orders that no trigger and no poll brought.",
)
def sweep_schedule(context: dg.ScheduleEvaluationContext):
    in_flight = _run_in_flight(context.instance, sweep_points_job.name)
    if in_flight:
        return dg.SkipReason(f"Sweep {in_flight} is not finished yet.")
    merchants = context.instance.get_dynamic_partitions(MERCHANT)
    if not merchants:
        return dg.SkipReason("There are no merchants yet.")
    return dg.RunRequest(tags={RANGE_START: merchants[0], RANGE_END: merchants[-1]})


@dg.schedule(
    job=release_holds_job,
    cron_schedule="* * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every minute in which there is one: gives back what checkouts reserved and nobody captured in time.",
)
def release_holds_schedule(context: dg.ScheduleEvaluationContext, ledger: LedgerDatabase):
    from loyalty_pipelines.db.holds_run import is_any_hold_stale

    with ledger.engine() as engine:
        if not is_any_hold_stale(engine):
            return dg.SkipReason("No hold is past its time.")
    in_flight = _run_in_flight(context.instance, release_holds_job.name)
    if in_flight:
        return dg.SkipReason(f"Run {in_flight} is not finished yet.")
    return dg.RunRequest()


def _run_in_flight(instance: dg.DagsterInstance, job_name: str) -> str | None:
    records = instance.get_run_records(dg.RunsFilter(job_name=job_name, statuses=IN_FLIGHT), limit=1)
    return records[0].dagster_run.run_id if records else None


award_checks_schedule = dg.ScheduleDefinition(
    name="award_checks_schedule",
    job=award_checks_job,
    cron_schedule="25 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every hour, after the sweep: does every order have its points, once, and in time?",
)

prune_history_schedule = dg.ScheduleDefinition(
    name="prune_history_schedule",
    job=prune_history_job,
    cron_schedule="15 4 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night: removes old runs with their events.",
)

SCHEDULES = [sweep_schedule, release_holds_schedule, award_checks_schedule, prune_history_schedule]
