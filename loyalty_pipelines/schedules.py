"""What runs by the clock."""

import os
from collections.abc import Mapping

import dagster as dg

from loyalty_pipelines.domain.metrics_push import URL_VARIABLE, is_push_wanted
from loyalty_pipelines.jobs import (
    IN_FLIGHT,
    alert_checks_job,
    award_checks_job,
    expire_points_job,
    expiry_checks_job,
    fix_subscriptions_job,
    integrity_checks_job,
    integrity_job,
    notification_checks_job,
    prune_history_job,
    push_metrics_job,
    release_holds_job,
    report_checks_job,
    reports_job,
    source_contracts_job,
    subscription_checks_job,
    subscription_report_job,
    subscriptions_job,
    sweep_points_job,
)
from loyalty_pipelines.partitions import MERCHANT
from loyalty_pipelines.platform_time import EXPIRY_HOUR, PROOF_HOUR, REPORTS_HOUR, platform_timezone
from loyalty_pipelines.resources.database import LedgerDatabase

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
SCHEDULE_NAME = "dagster/schedule_name"


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
    return _for_all_merchants(context, "awarded_points")


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


@dg.schedule(
    job=expire_points_job,
    cron_schedule=f"0 {EXPIRY_HOUR} * * *",
    # Read once, when the definitions are loaded.
    execution_timezone=platform_timezone().key,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at 02:00 in the platform's time zone (LOYALTY_TIMEZONE, else UTC), all merchants in one "
    "run: warns of what is about to expire, and takes what is due.",
)
def expiry_schedule(context: dg.ScheduleEvaluationContext):
    # Only a night that is not over holds the next one back: a run of one merchant by hand must not cost the others
    # theirs, and two at once expire nothing twice.
    in_flight = _run_in_flight(context.instance, expire_points_job.name, tags={SCHEDULE_NAME: "expiry_schedule"})
    if in_flight:
        return dg.SkipReason(f"Expiry run {in_flight} is not finished yet.")
    return _for_all_merchants(context, "expiry", dry_run=False)


@dg.schedule(
    job=integrity_job,
    cron_schedule="35 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every hour: proves what was written since the last proof, of all merchants.",
)
def integrity_schedule(context: dg.ScheduleEvaluationContext):
    return _proof(context, is_full=False)


@dg.schedule(
    job=integrity_job,
    cron_schedule=f"0 {PROOF_HOUR} * * *",
    execution_timezone=platform_timezone().key,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at 03:00 in the platform's time zone, after expiry: proves everything, of all merchants.",
)
def integrity_nightly_schedule(context: dg.ScheduleEvaluationContext):
    return _proof(context, is_full=True)


def _proof(context: dg.ScheduleEvaluationContext, *, is_full: bool) -> dg.RunRequest | dg.SkipReason:
    # A night is never left out: beside another proof, its own waits.
    in_flight = None if is_full else _run_in_flight(context.instance, integrity_job.name)
    if in_flight:
        return dg.SkipReason(f"Proof {in_flight} is not finished yet.")
    return _for_all_merchants(context, "balance_integrity", full=is_full, everybody=True)


@dg.schedule(
    job=subscriptions_job,
    cron_schedule="*/5 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every 5 minutes in which the shop changed something or a look is due: compares that, of all "
    "merchants.",
)
def subscriptions_schedule(context: dg.ScheduleEvaluationContext, ledger: LedgerDatabase):
    in_flight = _run_in_flight(context.instance, subscriptions_job.name)
    if in_flight:
        return dg.SkipReason(f"Comparison {in_flight} is not finished yet.")
    return _comparison(context, ledger, is_full=False)


@dg.schedule(
    job=subscriptions_job,
    cron_schedule=f"30 {PROOF_HOUR} * * *",
    execution_timezone=platform_timezone().key,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at 03:30 in the platform's time zone: compares all payments and subscriptions, of all "
    "merchants.",
)
def subscriptions_nightly_schedule(context: dg.ScheduleEvaluationContext, ledger: LedgerDatabase):
    # A night is never left out: beside another comparison, its own waits.
    return _comparison(context, ledger, is_full=True)


def _comparison(
    context: dg.ScheduleEvaluationContext, ledger: LedgerDatabase, *, is_full: bool
) -> dg.RunRequest | dg.SkipReason:
    why_not = _why_not_compared(ledger, is_full=is_full)
    if why_not:
        return dg.SkipReason(why_not)
    return _for_all_merchants(context, "subscription_mismatches", full=is_full, everybody=True)


def _why_not_compared(ledger: LedgerDatabase, *, is_full: bool) -> str | None:
    """Return why there is nothing to do; a database that can't be read is an error, and none of these."""
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.subscription_checks import why_not_compared
    from loyalty_pipelines.domain.source_mapping import MappingWithdrawnError, NoMappingError

    with ledger.engine() as engine, reading(engine) as conn:
        try:
            return why_not_compared(conn, is_full=is_full)
        except (NoMappingError, MappingWithdrawnError) as error:
            return str(error)


@dg.schedule(
    job=fix_subscriptions_job,
    cron_schedule="*/10 * * * *",
    # It changes the shop's rows: an operator turns it on, when the plans look right.
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Every 10 minutes, once somebody has turned it on: applies the fixes that are automatic or approved. "
    "Look at 'loyalty subscriptions plan' first.",
)
def fix_subscriptions_schedule(context: dg.ScheduleEvaluationContext, ledger: LedgerDatabase):
    in_flight = _run_in_flight(context.instance, fix_subscriptions_job.name)
    if in_flight:
        return dg.SkipReason(f"Run {in_flight} is not finished yet.")
    why_not = _why_not_compared(ledger, is_full=True)
    if why_not:
        return dg.SkipReason(why_not)
    return dg.RunRequest(run_config={"ops": {"fix_subscriptions": {"config": {"dry_run": False}}}})


@dg.schedule(
    job=subscription_report_job,
    cron_schedule=f"15 {REPORTS_HOUR} * * *",
    execution_timezone=platform_timezone().key,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at 05:15 in the platform's time zone: writes the report on money at risk, and sends its "
    "summary.",
)
def subscription_report_schedule(ledger: LedgerDatabase):
    why_not = _why_not_compared(ledger, is_full=True)
    return dg.SkipReason(why_not) if why_not else dg.RunRequest()


@dg.schedule(
    job=push_metrics_job,
    cron_schedule="*/5 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every 5 minutes, if LOYALTY_METRICS_PUSH_URL names a Pushgateway: pushes what 'loyalty metrics' "
    "prints.",
)
def push_metrics_schedule(context: dg.ScheduleEvaluationContext):
    if not is_push_wanted(os.environ):
        return dg.SkipReason(f"{URL_VARIABLE} is not set.")
    in_flight = _run_in_flight(context.instance, push_metrics_job.name)
    if in_flight:
        return dg.SkipReason(f"Run {in_flight} is not finished yet.")
    return dg.RunRequest()


def _for_all_merchants(
    context: dg.ScheduleEvaluationContext, step: str, **config: bool
) -> dg.RunRequest | dg.SkipReason:
    """Ask for one run of all merchants' partitions, with this configuration of its step."""
    merchants = context.instance.get_dynamic_partitions(MERCHANT)
    if not merchants:
        return dg.SkipReason("There are no merchants yet.")
    return dg.RunRequest(
        tags={RANGE_START: merchants[0], RANGE_END: merchants[-1]}, run_config={"ops": {step: {"config": config}}}
    )


def _run_in_flight(instance: dg.DagsterInstance, job_name: str, *, tags: Mapping[str, str] | None = None) -> str | None:
    wanted = dg.RunsFilter(job_name=job_name, statuses=IN_FLIGHT, tags=tags)
    records = instance.get_run_records(wanted, limit=1)
    return records[0].dagster_run.run_id if records else None


award_checks_schedule = dg.ScheduleDefinition(
    name="award_checks_schedule",
    job=award_checks_job,
    cron_schedule="25 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every hour, after the sweep: does every order have its points, once, and in time?",
)

expiry_checks_schedule = dg.ScheduleDefinition(
    name="expiry_checks_schedule",
    job=expiry_checks_job,
    cron_schedule="20 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every hour: did expiry succeed for every merchant lately, is none stopped, and was everybody warned?",
)

notification_checks_schedule = dg.ScheduleDefinition(
    name="notification_checks_schedule",
    job=notification_checks_job,
    cron_schedule="40 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every hour: do mails arrive, and in time?",
)

integrity_checks_schedule = dg.ScheduleDefinition(
    name="integrity_checks_schedule",
    job=integrity_checks_job,
    cron_schedule="45 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every hour, after the proof: what is wrong and not put right yet?",
)

prune_history_schedule = dg.ScheduleDefinition(
    name="prune_history_schedule",
    job=prune_history_job,
    cron_schedule="15 4 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night: removes old runs with their events.",
)


@dg.schedule(
    job=reports_job,
    cron_schedule=f"0 {REPORTS_HOUR} * * *",
    # As of expiry_schedule.
    execution_timezone=platform_timezone().key,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at 05:00 in the platform's time zone (LOYALTY_TIMEZONE, else UTC), after expiry and the "
    "proof of the balances: reports of all merchants in one run, those that left the shop, too.",
)
def reports_schedule(context: dg.ScheduleEvaluationContext):
    in_flight = _run_in_flight(context.instance, reports_job.name, tags={SCHEDULE_NAME: "reports_schedule"})
    if in_flight:
        return dg.SkipReason(f"Reports run {in_flight} is not finished yet.")
    return _for_all_merchants(context, "reports", everybody=True)


report_checks_schedule = dg.ScheduleDefinition(
    name="report_checks_schedule",
    job=report_checks_job,
    cron_schedule=f"30 {REPORTS_HOUR} * * *",
    execution_timezone=platform_timezone().key,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at 05:30 in the platform's time zone: is what merchants owe the sum of their balances?",
)

alert_checks_schedule = dg.ScheduleDefinition(
    name="alert_checks_schedule",
    job=alert_checks_job,
    cron_schedule="50 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every hour: do the alert channels work?",
)

source_contracts_schedule = dg.ScheduleDefinition(
    name="source_contracts_schedule",
    job=source_contracts_job,
    # It reads every row of the shop, and what it finds has been there since yesterday or longer.
    cron_schedule="0 4 * * *",
    execution_timezone=platform_timezone().key,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at 04:00 in the platform's time zone: is the shop's data as its contracts expect?",
)

subscription_checks_schedule = dg.ScheduleDefinition(
    name="subscription_checks_schedule",
    job=subscription_checks_job,
    cron_schedule="55 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every hour, that of the night's comparison, too: which payments and subscriptions disagree?",
)

SCHEDULES = [
    sweep_schedule,
    release_holds_schedule,
    expiry_schedule,
    award_checks_schedule,
    expiry_checks_schedule,
    notification_checks_schedule,
    integrity_schedule,
    integrity_nightly_schedule,
    integrity_checks_schedule,
    prune_history_schedule,
    reports_schedule,
    report_checks_schedule,
    alert_checks_schedule,
    source_contracts_schedule,
    push_metrics_schedule,
    subscriptions_schedule,
    subscriptions_nightly_schedule,
    subscription_checks_schedule,
    fix_subscriptions_schedule,
    subscription_report_schedule,
]
