"""What is wrong, told once: follows checks, runs, freshness and the queue, and sends what somebody has to know."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from loyalty_pipelines.resources.alerter import Alerter
from loyalty_pipelines.resources.database import LedgerDatabase
from loyalty_pipelines.sensors.alert_checks import check_page, follow_checks
from loyalty_pipelines.sensors.alert_runs import asset_jobs, follow_jobs, follow_runs_by_hand

if TYPE_CHECKING:
    from loyalty_pipelines.domain.alert_table import AlertTable
    from loyalty_pipelines.domain.alerts import Announced, Sight
    from loyalty_pipelines.domain.queue import QueueVerdict

INTERVAL_SECONDS = 30
# Followed where its rows are, so that it need not wait for its hourly run.
QUEUE_CHECK = "few_updates_wait_in_the_queue"


def look_and_tell(context: dg.SensorEvaluationContext, ledger: LedgerDatabase, alerter: Alerter):
    """One tick: see what is wrong, store it, tell somebody."""
    from loyalty_pipelines.db.alerts_run import SENSOR, announce, idle_jobs, observe, waiting_updates
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
    made = asset_jobs(repository)
    sight = (
        complaint.plus(follow_checks(context.instance, check_keys(repository), as_of=as_of))
        .plus(follow_runs_by_hand(context.instance, made, as_of=as_of))
        .plus(follow_freshness(context.instance, windows(repository), as_of=as_of))
    )
    with ledger.engine() as engine:
        idle = idle_jobs(engine)
        sight = sight.plus(follow_jobs(context.instance, job_names(repository), as_of=as_of, idle=idle, made=made))
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
    """Return the names of our jobs; Dagster's own one, for what is started by hand, begins with two underscores."""
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
                place=check_page(dg.AssetCheckKey(RECONCILIATION_QUEUE, QUEUE_CHECK)),
            )
        )
    return Sight(symptoms=tuple(others), undecided=sight.undecided - {QUEUE_CHECK})
