"""Failed runs: of which job or asset, and what has made good for them since."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg

from loyalty_pipelines.assets.expiry import STEPS, ExpiryConfig
from loyalty_pipelines.assets.subscriptions import FixConfig
from loyalty_pipelines.jobs import IN_FLIGHT, expire_points_job, fix_subscriptions_job
from loyalty_pipelines.partitions import MERCHANT

if TYPE_CHECKING:
    from loyalty_pipelines.domain.alerts import Sight, Symptom

# Dagster's own job for what somebody materializes in the UI.
BY_HAND = "__ASSET_JOB"
# How its problems are called, and the row of the table for all of them.
BY_HAND_GROUP = "by_hand"
# Of Dagster's own, for a run that it will start again by itself, and for the one that it started.
WILL_RETRY = "dagster/will_retry"
PARENT_RUN = "dagster/parent_run_id"
STARTED_BY = ("dagster/schedule_name", "dagster/sensor_name")
# Of Dagster's own, for a re-execution that makes only what the failed run did not.
OF_THE_REST = "dagster/is_asset_resume_retry"
PARTITION = "dagster/partition"
RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
# So long a lost run waits for its retry.
RETRY_GRACE = timedelta(minutes=5)
# How the error of a step is called whose blocking check is red.
CHECK_FAILED = "DagsterAssetCheckFailedError"
# Errors with texts of our own: no personal data in them.
WORDED = ("Failure",)
# So many runs of a job are looked at: failed ones, and where there are any, those that succeeded.
FAILURES = 20
SUCCESSES = 50
# By hand, the runs of all assets are of one job; a backfill starts one for each partition.
FAILURES_BY_HAND = 100
# The logs of so many failed runs of a job are read per tick.
READ = 5
LOGS_KEPT = 1000


@dataclass(frozen=True)
class _Run:
    """A run that has ended, and what it was to do."""

    record: dg.RunRecord
    merchants: "_Merchants"
    # All that its job makes, where that is known.
    whole: frozenset[dg.AssetKey] | None = None

    @property
    def run(self) -> dg.DagsterRun:
        return self.record.dagster_run

    @property
    def has_failed(self) -> bool:
        return self.run.status == dg.DagsterRunStatus.FAILURE

    @cached_property
    def ended_at(self) -> datetime:
        return datetime.fromtimestamp(self.record.end_time or self.record.create_timestamp.timestamp(), UTC)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """What was said to its steps, all together."""
        steps: Mapping[str, Any] = self.run.run_config.get("ops") or {}  # type: ignore[assignment]
        said = [step.get("config") for step in steps.values() if step]
        return {name: value for one in said if isinstance(one, dict) for name, value in one.items()}

    @cached_property
    def left_out(self) -> frozenset[str]:
        """What it was told not to do."""
        is_expiry = self.run.job_name == expire_points_job.name or bool(
            set(STEPS) & set(self.run.asset_selection or ())
        )
        is_fix = self.run.job_name == fix_subscriptions_job.name
        default = (is_expiry and ExpiryConfig.model_fields["dry_run"].default) or (
            is_fix and FixConfig.model_fields["dry_run"].default
        )
        is_dry = self.config.get("dry_run", default)
        is_full = self.config.get("full", True)
        return frozenset(name for name, is_so in (("writing", is_dry), ("what is old", not is_full)) if is_so)

    @cached_property
    def assets(self) -> frozenset[dg.AssetKey] | None:
        """What it was to make; None: all that its job makes."""
        if self.run.asset_selection:
            return frozenset(self.run.asset_selection)
        return frozenset() if self.run.asset_check_selection else self.whole

    @cached_property
    def partitions(self) -> frozenset[str] | None:
        """Of which merchants it was; None: of all."""
        if self.config.get("everybody"):
            return None
        # What has no partitions names its merchants, or none.
        if named := self.config.get("merchants") or [one for one in (self.config.get("merchant"),) if one]:
            return frozenset(named)
        if PARTITION in self.run.tags:
            return frozenset([self.run.tags[PARTITION]])
        if RANGE[0] in self.run.tags:
            return self.merchants.between(*(self.run.tags.get(name, "") for name in RANGE))
        return None

    def makes_good_for(self, failed: "_Run") -> bool:
        """Return whether nobody has to look at the failed one any more, if this one, which ended later, succeeded.

        The next of the same schedule or sensor, a re-execution, or one of at least the same merchants does, if it was
        to make at least the same assets.
        """
        if not self.is_as_much_as(failed):
            return False
        if self.run.tags.get(OF_THE_REST) == "true" and _root(self.run) == _root(failed.run):
            return True
        return self.assets is None or (failed.assets is not None and failed.assets <= self.assets)

    def is_as_much_as(self, failed: "_Run") -> bool:
        """Return whether it was to do as much as the failed one with each asset that it was to make."""
        if self.left_out - failed.left_out:
            return False
        if _root(self.run) == _root(failed.run):
            return True
        if any(self.run.tags.get(name, "") == failed.run.tags.get(name) for name in STARTED_BY):
            return True
        if self.partitions is None:
            return True
        return failed.partitions is not None and failed.partitions <= self.partitions


@dataclass
class _Merchants:
    """The partitions in Dagster's order, read when a run needs them."""

    instance: dg.DagsterInstance
    _ranges: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)

    @cached_property
    def _keys(self) -> Sequence[str]:
        return self.instance.get_dynamic_partitions(MERCHANT)

    def between(self, start: str, end: str) -> frozenset[str]:
        """Return the partitions from one to the other; of those that are gone, only the ends are known."""
        if (start, end) not in self._ranges:
            places = {key: number for number, key in enumerate(self._keys)} if start != end else {}
            inner = self._keys[places[start] : places[end] + 1] if start in places and end in places else ()
            self._ranges[start, end] = frozenset((start, end, *inner))
        return self._ranges[start, end]


def _root(run: dg.DagsterRun) -> str:
    return run.root_run_id or run.run_id


def _ended(
    instance: dg.DagsterInstance,
    job_name: str,
    status: dg.DagsterRunStatus,
    *,
    limit: int,
    as_of: datetime,
    whole: frozenset[dg.AssetKey] | None = None,
) -> list[_Run]:
    """Return the newest runs of a job that ended so within the time after which they are forgotten."""
    from loyalty_pipelines.domain.alerts import FORGOTTEN

    # One that ended lately may have begun a day before.
    wanted = dg.RunsFilter(job_name=job_name, statuses=[status], created_after=as_of - FORGOTTEN - timedelta(days=1))
    merchants = _Merchants(instance)
    runs = [_Run(record, merchants, whole) for record in instance.get_run_records(wanted, limit=limit)]
    return [one for one in runs if one.ended_at > as_of - FORGOTTEN]


def _newest_first(
    instance: dg.DagsterInstance,
    job_name: str,
    *,
    as_of: datetime,
    limit: int = FAILURES,
    whole: frozenset[dg.AssetKey] | None = None,
) -> list[_Run]:
    """Return the runs of a job, by the time at which they ended; none where none failed."""
    failed = _ended(instance, job_name, dg.DagsterRunStatus.FAILURE, limit=limit, as_of=as_of, whole=whole)
    if not failed:
        return []
    succeeded = _ended(instance, job_name, dg.DagsterRunStatus.SUCCESS, limit=SUCCESSES, as_of=as_of, whole=whole)
    return sorted([*failed, *succeeded], key=lambda one: one.ended_at, reverse=True)


def follow_jobs(
    instance: dg.DagsterInstance,
    names: Iterable[str],
    *,
    as_of: datetime,
    idle: Collection[str] = (),
    made: "Mapping[str, frozenset[dg.AssetKey]] | None" = None,
) -> "Sight":
    """Return the jobs of which a run has failed that no later one has made good for. One that is retried says nothing.

    `made`: what each job makes. Dagster's UI starts all of a job by naming its assets.
    `idle`: jobs that run only when there is something to do, and have nothing left to do: nothing is wrong any more.
    """
    from loyalty_pipelines.domain.alerts import Sight

    symptoms, undecided = [], set()
    for name in names:
        if name in idle:
            continue
        for failed in _open_failures(_newest_first(instance, name, as_of=as_of, whole=(made or {}).get(name))):
            if is_retried(instance, failed.record, as_of=as_of):
                undecided.add(name)
            elif symptom := _failure(instance, name, failed):
                symptoms.append(symptom)
                break
    return Sight(symptoms=tuple(symptoms), undecided=frozenset(undecided))


def _open_failures(runs: Sequence[_Run]) -> Iterator[_Run]:
    """Return the failed runs that no later one stands for, whether it succeeded or failed; the newest first."""
    found = [
        run
        for number, run in enumerate(runs)
        if run.has_failed and not any(later.makes_good_for(run) for later in runs[:number])
    ]
    return iter(found[:READ])


def is_retried(instance: dg.DagsterInstance, record: dg.RunRecord, *, as_of: datetime) -> bool:
    """Return whether a retry of a failed run is under way, or is about to be."""
    run = record.dagster_run
    retries = dg.RunsFilter(job_name=run.job_name, statuses=IN_FLIGHT, tags={PARENT_RUN: run.run_id})
    if instance.get_run_records(retries, limit=1):
        return True
    ended_at = datetime.fromtimestamp(record.end_time or as_of.timestamp(), UTC)
    return run.tags.get(WILL_RETRY) == "true" and as_of < ended_at + RETRY_GRACE


def _failure(instance: dg.DagsterInstance, name: str, failed: _Run) -> "Symptom | None":
    """Return what to say of a failed run; None: its checks say it all."""
    from loyalty_pipelines.domain.alerts import Source, State, Symptom

    log = _log(instance, failed.run.run_id)
    if log.is_of_checks_only or (log.errors and all(kind == CHECK_FAILED for kind, _ in log.errors)):
        return None
    told = [text.split(": ", maxsplit=1)[-1] if kind in WORDED else kind for kind, text in log.errors]
    return Symptom(
        name=name,
        source=Source.JOB,
        state=State.RED,
        title=f"{name} failed",
        detail=told[0] if told else "The run ended before any of its steps failed: its worker was lost, or stopped.",
        since=failed.ended_at,
        place=f"/runs/{failed.run.run_id}",
    )


@dataclass(frozen=True, kw_only=True)
class _Log:
    """What a failed run has logged."""

    # Kind and text of the errors of its steps; those of red checks are behind others.
    errors: tuple[tuple[str, str], ...]
    # It was to make nothing but results of checks: then each says itself how it is.
    is_of_checks_only: bool
    # What it was to make and whose step did not succeed.
    not_made: tuple[dg.AssetKey, ...]


# By run id. It does not change any more, and has an event for each asset and partition.
_LOGS: dict[str, _Log] = {}


def _log(instance: dg.DagsterInstance, run_id: str) -> _Log:
    """Return what a failed run has logged, read once."""
    log = _LOGS.get(run_id)
    if log is None:
        log = _read_log(instance, run_id)
        if len(_LOGS) >= LOGS_KEPT:
            _LOGS.clear()
        _LOGS[run_id] = log
    return log


def _read_log(instance: dg.DagsterInstance, run_id: str) -> _Log:
    kind = dg.DagsterEventType
    planned = {kind.ASSET_MATERIALIZATION_PLANNED, kind.ASSET_CHECK_EVALUATION_PLANNED}
    entries = instance.all_logs(run_id, of_type={*planned, kind.STEP_SUCCESS, kind.STEP_FAILURE})
    events = [entry.dagster_event for entry in entries if entry.dagster_event]
    found = [one.step_failure_data.error for one in events if one.event_type == kind.STEP_FAILURE]
    errors = [_cause(error) for error in found if error is not None]
    done = {one.step_key for one in events if one.event_type == kind.STEP_SUCCESS}
    wanted = [one for one in events if one.event_type == kind.ASSET_MATERIALIZATION_PLANNED]
    return _Log(
        errors=tuple(sorted(errors, key=lambda error: error[0] == CHECK_FAILED)),
        is_of_checks_only={one.event_type for one in events} & planned == {kind.ASSET_CHECK_EVALUATION_PLANNED},
        not_made=tuple(sorted({one.asset_key for one in wanted if one.asset_key and one.step_key not in done})),
    )


def _cause(error: Any) -> tuple[str, str]:
    """Return kind and text of what was raised: Dagster wraps what is not its own."""
    while error.cls_name not in (*WORDED, CHECK_FAILED) and error.cause is not None:
        error = error.cause
    return error.cls_name or "Error", error.message.strip()


# --- runs that somebody started in the UI -----------------------------------------------------------------


def asset_jobs(repository: dg.RepositoryDefinition) -> dict[str, frozenset[dg.AssetKey]]:
    """Return what our jobs make."""
    from loyalty_pipelines.jobs import JOBS

    chosen = {job.name: job.selection for job in JOBS if not isinstance(job, dg.JobDefinition)}
    made = {name: frozenset(selection.resolve(repository.asset_graph)) for name, selection in chosen.items()}
    return {name: keys for name, keys in made.items() if keys}


def follow_runs_by_hand(
    instance: dg.DagsterInstance, jobs: Mapping[str, frozenset[dg.AssetKey]], *, as_of: datetime
) -> "Sight":
    """Return the assets that a run from the UI or of a backfill did not make, and none has made since.

    `jobs`: what each job makes; its runs make good for those by hand, too.
    """
    from loyalty_pipelines.domain.alerts import Sight

    by_hand = _newest_first(instance, BY_HAND, as_of=as_of, limit=FAILURES_BY_HAND)
    if not by_hand:
        return Sight()

    @cache
    def successes(job: str) -> list[_Run]:
        return _ended(instance, job, dg.DagsterRunStatus.SUCCESS, limit=SUCCESSES, as_of=as_of)

    def is_open(key: dg.AssetKey, failed: _Run) -> bool:
        of_jobs = (run for job, keys in jobs.items() if key in keys for run in successes(job))
        return not any(_has_made(run, key, failed) for run in (*by_hand, *of_jobs))

    everything = frozenset[dg.AssetKey]().union(*jobs.values())
    symptoms: dict[dg.AssetKey, Symptom] = {}
    undecided: set[dg.AssetKey] = set()
    unread = READ
    for failed in (one for one in by_hand if one.has_failed):
        wanted = everything if failed.assets is None else failed.assets
        wanted = {key for key in wanted if key not in symptoms and is_open(key, failed)}
        if not wanted and failed.assets is not None:
            # Of most of them the log need not be read.
            continue
        if failed.run.run_id not in _LOGS:
            if not unread:
                undecided |= wanted
                continue
            unread -= 1
        log = _log(instance, failed.run.run_id)
        keys = [key for key in log.not_made if key not in symptoms and is_open(key, failed)]
        if keys and is_retried(instance, failed.record, as_of=as_of):
            undecided.update(keys)
        elif keys and (symptom := _failure(instance, BY_HAND_GROUP, failed)):
            symptoms |= {key: _of_asset(symptom, key) for key in keys}
    return Sight(symptoms=tuple(symptoms.values()), undecided=frozenset(map(_by_hand_name, undecided)))


def _has_made(run: _Run, key: dg.AssetKey, failed: _Run) -> bool:
    """Return whether a later run has made an asset that a failed one did not."""
    is_success = not run.has_failed and (run.assets is None or key in run.assets)
    return is_success and run.ended_at > failed.ended_at and run.is_as_much_as(failed)


def _by_hand_name(key: dg.AssetKey) -> str:
    return f"{BY_HAND_GROUP}/{key.to_user_string()}"


def _of_asset(symptom: "Symptom", key: dg.AssetKey) -> "Symptom":
    """Return what is to be said of a failed run for an asset that it did not make."""
    name = _by_hand_name(key)
    return replace(symptom, name=name, title=f"{key.to_user_string()}, started by hand, failed", asset=name)
