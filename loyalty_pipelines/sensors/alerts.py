"""What is wrong, told once: follows checks, runs, freshness and the queue, and sends what somebody has to know."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from loyalty_pipelines.jobs import IN_FLIGHT
from loyalty_pipelines.resources.alerter import Alerter
from loyalty_pipelines.resources.database import LedgerDatabase

if TYPE_CHECKING:
    from loyalty_pipelines.domain.alert_table import AlertTable
    from loyalty_pipelines.domain.alerts import Announced, Sight, Symptom
    from loyalty_pipelines.domain.queue import QueueVerdict

INTERVAL_SECONDS = 30
# Followed where its rows are, so that it need not wait for its hourly run.
QUEUE_CHECK = "few_updates_wait_in_the_queue"
# Of Dagster's own, for a run that it will start again by itself, and for the one that it started.
WILL_RETRY = "dagster/will_retry"
PARENT_RUN = "dagster/parent_run_id"
# So long a lost run waits for its retry.
RETRY_GRACE = timedelta(minutes=5)
# How the error of a step is called whose blocking check is red.
CHECK_FAILED = "DagsterAssetCheckFailedError"
# Errors with texts of our own: no personal data in them.
WORDED = ("Failure",)
# All checks run by the hour or by the night.
OLD_AFTER = timedelta(hours=26)
SHOWN_OLD = 10
ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]


def look_and_tell(context: dg.SensorEvaluationContext, ledger: LedgerDatabase, alerter: Alerter):
    """One tick: see what is wrong, store it, tell somebody."""
    from loyalty_pipelines.db.alerts_run import SENSOR, announce, observe, waiting_updates
    from loyalty_pipelines.domain.alerts import AlertNotSentError

    as_of = datetime.now(UTC)
    repository = context.repository_def
    assert repository is not None
    table, complaint = _table(alerter, as_of=as_of)
    if complaint.symptoms:
        context.log.error(complaint.symptoms[0].detail)
    settings = alerter.settings()
    for problem in settings.problems:
        context.log.error(problem)
    sight = (
        complaint.plus(follow_checks(context.instance, check_keys(repository), as_of=as_of))
        .plus(follow_jobs(context.instance, job_names(repository), as_of=as_of))
        .plus(follow_freshness(context.instance, windows(repository), as_of=as_of))
    )
    with ledger.engine() as engine:
        sight = with_queue(sight, waiting_updates(engine), as_of=as_of)
        count = observe(engine, SENSOR, sight, table)
        if not settings.channels and not settings.problems:
            return dg.SkipReason(_without_channels(count))
        settings.require_channel()
        done = announce(engine, alerter.channels(settings), settings=settings)
    for channel, error in done.failures.items():
        context.log.warning(f"Channel {channel}: {error}")
    if done.is_nobody_told:
        raise AlertNotSentError(done)
    return dg.SkipReason(_summary(count, done))


alerts_sensor = dg.sensor(
    name="alerts_sensor",
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Watches check results, failed runs, the freshness of nightly assets and the reconciliation queue, and "
    "tells the channels of LOYALTY_ALERT_*: once when a problem starts, again after the configured hours, and once "
    "when it is over. docs/alerts.md says what is how bad.",
)(look_and_tell)


def _table(alerter: Alerter, *, as_of: datetime) -> "tuple[AlertTable, Sight]":
    """Return the table in docs/alerts.md; where it can't be used, the default row for all, and that as a problem."""
    from loyalty_pipelines.domain.alert_table import AlertTable, AlertTableError
    from loyalty_pipelines.domain.alerts import TABLE_PROBLEM, Sight, Source, State, Symptom

    try:
        return alerter.table(), Sight()
    except AlertTableError as error:
        symptom = Symptom(
            name=TABLE_PROBLEM,
            source=Source.CHECK,
            state=State.RED,
            title="the table of alerts can't be used",
            detail=str(error),
            since=as_of,
        )
        return AlertTable(), Sight(symptoms=(symptom,))


def _without_channels(count: int) -> str:
    from loyalty_pipelines.domain.alert_settings import AlertNotConfiguredError

    return f"{AlertNotConfiguredError()} {_problems(count)}"


def _summary(count: int, done: "Announced") -> str:
    sent = ", ".join(f"{number} by {channel}" for channel, number in sorted(done.sent.items()))
    waiting = f" {done.unsent} wait for a channel that works." if done.unsent else ""
    return f"{_problems(count)} Messages sent: {sent or 'none'}.{waiting}"


def _problems(count: int) -> str:
    return f"Open problems: {count} ('loyalty alerts list')." if count else "Nothing is wrong."


# --- what is followed -------------------------------------------------------------------------------------


def check_keys(repository: dg.RepositoryDefinition) -> list[dg.AssetCheckKey]:
    """Return the keys of all asset checks."""
    made = {*repository.assets_defs_by_key.values(), *repository.asset_checks_defs_by_key.values()}
    return sorted({spec.key for one in made for spec in one.check_specs}, key=lambda key: key.name)


def job_names(repository: dg.RepositoryDefinition) -> list[str]:
    """Return the names of our jobs; Dagster's own one for materializing by hand begins with two underscores."""
    return sorted(name for name in repository.job_names if not name.startswith("__"))


def windows(repository: dg.RepositoryDefinition) -> dict[dg.AssetKey, tuple[timedelta | None, timedelta]]:
    """Return, for each asset that has a freshness policy with a window, after how long it is yellow and red."""
    found: dict[dg.AssetKey, tuple[timedelta | None, timedelta]] = {}
    for made in repository.assets_defs_by_key.values():
        for spec in made.specs:
            fail: Any = getattr(spec.freshness_policy, "fail_window", None)
            warn: Any = getattr(spec.freshness_policy, "warn_window", None)
            if fail:
                found[spec.key] = (warn.to_timedelta() if warn else None, fail.to_timedelta())
    return found


# --- checks -----------------------------------------------------------------------------------------------


def follow_checks(instance: dg.DagsterInstance, keys: Iterable[dg.AssetCheckKey], *, as_of: datetime) -> "Sight":
    """Return the checks whose latest result is red or yellow, that could not run, or that were not run lately.

    A check that never ran is no problem, and ends none: its results may have been removed.
    """
    from loyalty_pipelines.domain.alerts import Sight

    symptoms, undecided = [], set()
    results: dict[str, datetime] = {}
    for key, record in instance.event_log_storage.get_asset_check_summary_records(list(keys)).items():
        last, completed = record.last_check_execution_record, record.last_completed_check_execution_record
        run = instance.get_run_by_id(last.run_id) if last is not None and last.status.value == "PLANNED" else None
        if last is not None and run is not None and run.status == dg.DagsterRunStatus.FAILURE:
            symptoms.append(_could_not_run(key, last.run_id, last.create_timestamp))
            continue
        if completed is not None:
            results[key.name] = datetime.fromtimestamp(completed.create_timestamp, UTC)
        symptom = _result(key, completed.evaluation, completed.create_timestamp) if completed is not None else None
        if symptom is not None:
            symptoms.append(symptom)
        elif completed is None or (run is not None and run.status in IN_FLIGHT):
            # What is being looked at now has no result: what it was before stays until then.
            undecided.add(key.name)
    old = {name: at for name, at in results.items() if at < as_of - OLD_AFTER}
    if old:
        symptoms.append(_old_checks(old))
    return Sight(symptoms=tuple(symptoms), undecided=frozenset(undecided))


def _old_checks(old: Mapping[str, datetime]) -> "Symptom":
    """Return the problem that a green result of long ago hides: nobody has looked since."""
    from loyalty_pipelines.domain.alerts import OLD_CHECKS, Source, State, Symptom

    return Symptom(
        name=OLD_CHECKS,
        source=Source.CHECK,
        state=State.RED,
        title=f"{len(old)} checks were not run lately",
        detail="Their newest results say nothing of today. Are their schedules on, do their runs hang? "
        + ", ".join(sorted(old)[:SHOWN_OLD])
        + (" and others." if len(old) > SHOWN_OLD else "."),
        since=min(old.values()) + OLD_AFTER,
    )


def _result(key: dg.AssetCheckKey, evaluation: dg.AssetCheckEvaluation | None, at: float) -> "Symptom | None":
    """Return what a result says is wrong, with its numbers and its merchants; None: nothing."""
    from loyalty_pipelines.domain.alerts import Source, State, Symptom

    if evaluation is None or evaluation.passed:
        return None
    is_red = evaluation.severity == dg.AssetCheckSeverity.ERROR
    values = {name: value.value for name, value in evaluation.metadata.items()}
    return Symptom(
        name=key.name,
        source=Source.CHECK,
        state=State.RED if is_red else State.YELLOW,
        title=f"{key.name} is {'red' if is_red else 'yellow'}",
        detail=evaluation.description or "",
        since=datetime.fromtimestamp(at, UTC),
        merchants=_merchants(evaluation.metadata),
        numbers={
            name: value
            for name, value in values.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        },
        place=_check_page(key),
        asset=key.asset_key.to_user_string(),
    )


def _merchants(metadata: Mapping[str, dg.MetadataValue]) -> tuple[str, ...]:
    """Return the merchants that a result's tables name, in their order."""
    tables = [one for one in metadata.values() if isinstance(one, dg.TableMetadataValue)]
    named = [row.data.get("merchant_id") for table in tables for row in table.records]
    return tuple(dict.fromkeys(one for one in named if isinstance(one, str) and one))


def _could_not_run(key: dg.AssetCheckKey, run_id: str, at: float) -> "Symptom":
    from loyalty_pipelines.domain.alerts import Source, State, Symptom

    return Symptom(
        name=key.name,
        source=Source.CHECK,
        state=State.BROKEN,
        title=f"{key.name} could not run",
        detail="Nobody knows whether what it proves still holds: its run failed before it had a result. The log of the "
        "run says why.",
        since=datetime.fromtimestamp(at, UTC),
        place=f"/runs/{run_id}",
        asset=key.asset_key.to_user_string(),
    )


def _check_page(key: dg.AssetCheckKey) -> str:
    return f"/assets/{'/'.join(key.asset_key.path)}?view=checks&checkDetail={key.name}"


# --- runs -------------------------------------------------------------------------------------------------


def follow_jobs(instance: dg.DagsterInstance, names: Iterable[str], *, as_of: datetime) -> "Sight":
    """Return the jobs whose newest run that ended has failed. One that was cancelled or is retried says nothing."""
    from loyalty_pipelines.domain.alerts import Sight

    symptoms, undecided = [], set()
    for name in names:
        records = instance.get_run_records(dg.RunsFilter(job_name=name, statuses=ENDED), limit=1)
        if not records:
            undecided.add(name)
        elif records[0].dagster_run.status == dg.DagsterRunStatus.FAILURE:
            if _is_retried(instance, records[0], as_of=as_of):
                undecided.add(name)
            elif symptom := _failure(instance, name, records[0]):
                symptoms.append(symptom)
    return Sight(symptoms=tuple(symptoms), undecided=frozenset(undecided))


def _is_retried(instance: dg.DagsterInstance, record: Any, *, as_of: datetime) -> bool:
    """Return whether a retry of a failed run is under way, or is about to be."""
    run = record.dagster_run
    retries = dg.RunsFilter(job_name=run.job_name, statuses=IN_FLIGHT, tags={PARENT_RUN: run.run_id})
    if instance.get_run_records(retries, limit=1):
        return True
    ended_at = datetime.fromtimestamp(record.end_time or as_of.timestamp(), UTC)
    return run.tags.get(WILL_RETRY) == "true" and as_of < ended_at + RETRY_GRACE


def _failure(instance: dg.DagsterInstance, name: str, record: Any) -> "Symptom | None":
    """Return what to say of a failed run; None: its checks say it all."""
    from loyalty_pipelines.domain.alerts import Source, State, Symptom

    run = record.dagster_run
    errors = _step_errors(instance, run.run_id)
    if _is_of_checks_only(instance, run.run_id) or (errors and all(kind == CHECK_FAILED for kind, _ in errors)):
        return None
    told = [text.split(": ", maxsplit=1)[-1] if kind in WORDED else kind for kind, text in errors]
    return Symptom(
        name=name,
        source=Source.JOB,
        state=State.RED,
        title=f"{name} failed",
        detail=told[0] if told else "The run ended before any of its steps failed: its worker was lost, or stopped.",
        since=datetime.fromtimestamp(record.end_time or record.create_timestamp.timestamp(), UTC),
        place=f"/runs/{run.run_id}",
    )


def _step_errors(instance: dg.DagsterInstance, run_id: str) -> list[tuple[str, str]]:
    """Return the kind and text of the errors of a run's steps, without those of red checks in front of others."""
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    found = [entry.dagster_event.step_failure_data.error for entry in entries if entry.dagster_event]
    errors = [_cause(error) for error in found if error is not None]
    return sorted(errors, key=lambda error: error[0] == CHECK_FAILED)


def _cause(error: Any) -> tuple[str, str]:
    """Return kind and text of what was raised: Dagster wraps what is not its own."""
    while error.cls_name not in (*WORDED, CHECK_FAILED) and error.cause is not None:
        error = error.cause
    return error.cls_name or "Error", error.message.strip()


def _is_of_checks_only(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Return whether a run was to make nothing but results of checks: then each says itself how it is."""
    planned = {dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED}
    entries = instance.all_logs(run_id, of_type=planned)
    kinds = {entry.dagster_event.event_type for entry in entries if entry.dagster_event}
    return kinds == {dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED}


# --- freshness --------------------------------------------------------------------------------------------


def follow_freshness(
    instance: dg.DagsterInstance,
    wanted: Mapping[dg.AssetKey, tuple[timedelta | None, timedelta]],
    *,
    as_of: datetime,
) -> "Sight":
    """Return the assets that were materialized too long ago. What never was is no problem, and ends none.

    By the same rule as Dagster's own freshness, and without its daemon, which may be what does not run.
    """
    from loyalty_pipelines.domain.alerts import Sight, Source, State, Symptom

    symptoms, undecided = [], set()
    for key, (warn, fail) in wanted.items():
        name = key.to_user_string()
        event = instance.get_latest_materialization_event(key)
        if event is None:
            undecided.add(name)
            continue
        made_at = datetime.fromtimestamp(event.timestamp, UTC)
        age = as_of - made_at
        is_red = age >= fail
        if not is_red and (warn is None or age < warn):
            continue
        limit = fail if is_red or warn is None else warn
        symptoms.append(
            Symptom(
                name=name,
                source=Source.FRESHNESS,
                state=State.RED if is_red else State.YELLOW,
                title=f"{name} is late",
                detail=f"It was last materialized at {made_at:%Y-%m-%d %H:%M} UTC, and has to be every "
                f"{limit.total_seconds() / 3600:g} hours. Is its schedule on, and is the daemon running?",
                since=made_at + limit,
                place=f"/assets/{'/'.join(key.path)}",
            )
        )
    return Sight(symptoms=tuple(symptoms), undecided=frozenset(undecided))


# --- the queue --------------------------------------------------------------------------------------------


def with_queue(sight: "Sight", found: "QueueVerdict", *, as_of: datetime) -> "Sight":
    """Return the sight with the queue as it is now, in place of what its check said in the last hour."""
    from loyalty_pipelines.assets.reconciliation_queue import RECONCILIATION_QUEUE
    from loyalty_pipelines.domain.alerts import Sight, Source, State, Symptom

    others = [one for one in sight.symptoms if one.name != QUEUE_CHECK or one.state is State.BROKEN]
    if found.is_red or found.is_yellow:
        others = [one for one in others if one.name != QUEUE_CHECK]
        others.append(
            Symptom(
                name=QUEUE_CHECK,
                source=Source.CHECK,
                state=State.RED if found.is_red else State.YELLOW,
                title=f"{QUEUE_CHECK} is {'red' if found.is_red else 'yellow'}",
                detail=found.description,
                since=as_of,
                merchants=tuple(one.merchant_id for one in found.waiting if one.merchant_id),
                numbers={
                    "unresolved": found.items,
                    "oldest in seconds": round(found.oldest_seconds),
                    "points at stake": found.points_at_stake,
                    "parked": found.parked,
                },
                place=_check_page(dg.AssetCheckKey(RECONCILIATION_QUEUE, QUEUE_CHECK)),
            )
        )
    return Sight(symptoms=tuple(others), undecided=sight.undecided - {QUEUE_CHECK})
