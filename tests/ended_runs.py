"""Runs that have ended, without what they would have done."""

from typing import Any

import dagster as dg

from loyalty_pipelines.definitions import defs
from loyalty_pipelines.sensors.alert_runs import BY_HAND

FAILURE, SUCCESS = dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_SUCCESS
ALL_NIGHT = {
    "dagster/schedule_name": "expiry_schedule",
    "dagster/asset_partition_range_start": "m1",
    "dagster/asset_partition_range_end": "m3",
}
ONE_MERCHANT = {"dagster/partition": "m2"}
FOR_EARNEST = {"ops": {"expiry": {"config": {"dry_run": False}}}}


def begin(instance: dg.DagsterInstance, job: str, **options: Any) -> dg.DagsterRun:
    """Let a run begin, with these tags, this configuration and these assets."""
    return _begin(instance, defs.resolve_job_def(job), **options)


def _begin(instance: dg.DagsterInstance, job: dg.JobDefinition, **options: Any) -> dg.DagsterRun:
    subset = job.get_subset(asset_selection=options["asset_selection"]) if "asset_selection" in options else job
    return instance.create_run_for_job(subset, status=dg.DagsterRunStatus.STARTED, **options)


def end(instance: dg.DagsterInstance, run: dg.DagsterRun, how: dg.DagsterEventType) -> dg.DagsterRun:
    """Let a run end."""
    instance.report_dagster_event(dg.DagsterEvent(how.value, run.job_name), run_id=run.run_id)
    return run


def run_of(instance: dg.DagsterInstance, job: str, how: dg.DagsterEventType, **options: Any) -> dg.DagsterRun:
    """Let a run begin and end."""
    return end(instance, begin(instance, job, **options), how)


def by_hand(
    instance: dg.DagsterInstance, how: dg.DagsterEventType, *assets: dg.AssetKey, **options: Any
) -> dg.DagsterRun:
    """Let a run begin and end that somebody started in the UI for these assets."""
    job = defs.resolve_implicit_global_asset_job_def()
    assert job is not None
    return end(instance, _begin(instance, job, asset_selection=set(assets), **options), how)


def check_by_hand(instance: dg.DagsterInstance, how: dg.DagsterEventType, check: dg.AssetCheckKey) -> dg.DagsterRun:
    """Let a run begin and end that somebody started in the UI by 'Execute check'."""
    run = dg.DagsterRun(job_name=BY_HAND, status=dg.DagsterRunStatus.STARTED, asset_check_selection={check})
    return end(instance, instance.run_storage.add_run(run), how)
