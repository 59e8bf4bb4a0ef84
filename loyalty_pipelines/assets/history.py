"""Dagster's own history: what is removed, and when."""

from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

# These run many times an hour.
LIVE_JOBS = (
    "award_points_job",
    "drain_reconciliation_queue_job",
    "release_holds_job",
    "send_notifications_job",
    "push_metrics_job",
)
FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
PAGE = 200


class PruneConfig(dg.Config):
    """Which runs are old."""

    keep_days: int = Field(default=30, ge=1, le=3650, description="Runs younger than this many days stay.")
    keep_live_days: int = Field(
        default=7,
        ge=1,
        le=3650,
        description="The same for jobs that run every minute: awards, the queue, holds, mails.",
    )
    max_runs: int = Field(default=20_000, ge=1, le=1_000_000, description="At most this many runs are removed at once.")


@dg.op(description="Deletes finished runs that are older than the configured days, with their events.")
def prune_history(context: dg.OpExecutionContext, config: PruneConfig) -> None:
    now = datetime.now(UTC)
    deleted = 0
    for job_name, days in (*((name, config.keep_live_days) for name in LIVE_JOBS), (None, config.keep_days)):
        old = dg.RunsFilter(job_name=job_name, statuses=FINISHED, created_before=now - timedelta(days=days))
        while deleted < config.max_runs:
            records = context.instance.get_run_records(
                filters=old, limit=min(PAGE, config.max_runs - deleted), ascending=True
            )
            if not records:
                break
            for record in records:
                context.instance.delete_run(record.dagster_run.run_id)
            deleted += len(records)
    context.log.info(f"Removed {deleted} old runs with their events.")
