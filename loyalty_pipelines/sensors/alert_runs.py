"""Failed runs: of which job or asset, and what has made good for them since."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg

from loyalty_pipelines.assets.expiry import STEPS, ExpiryConfig
from loyalty_pipelines.jobs import IN_FLIGHT, expire_points_job
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
# The logs of so many failed runs of a job are read per tick.
READ = 5


@dataclass(frozen=True)
class _Run:
    """A run that has ended, and what it was to do."""

    record: dg.RunRecord
    merchants: "_Merchants"

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
        is_dry = self.config.get("dry_run", is_expiry and ExpiryConfig.model_fields["dry_run"].default)
        is_full = self.config.get("full", True)
        return frozenset(name for name, is_so in (("writing", is_dry), ("what is old", not is_full)) if is_so)

    @cached_property
    def partitions(self) -> frozenset[str] | None:
        """Of which merchants it was; None: of all."""
        if self.config.get("everybody"):
            return None
        if PARTITION in self.run.tags:
            return frozenset([self.run.tags[PARTITION]])
        if RANGE[0] in self.run.tags:
            return self.merchants.between(*(self.run.tags.get(name, "") for name in RANGE))
        return None

    def makes_good_for(self, failed: "_Run") -> bool:
        """Return whether nobody has to look at the failed one any more, if this one, which ended later, succeeded.

        The next of the same schedule or sensor, a re-execution, or one of at least the same merchants does.
        """
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
    instance: dg.DagsterInstance, job_name: str, status: dg.DagsterRunStatus, *, limit: int, as_of: datetime
) -> list[_Run]:
    """Return the newest runs of a job that ended so within the time after which they are forgotten."""
    from loyalty_pipelines.domain.alerts import FORGOTTEN

    # One that ended lately may have begun a day before.
    wanted = dg.RunsFilter(job_name=job_name, statuses=[status], created_after=as_of - FORGOTTEN - timedelta(days=1))
    merchants = _Merchants(instance)
    runs = [_Run(record, merchants) for record in instance.get_run_records(wanted, limit=limit)]
    return [one for one in runs if one.ended_at > as_of - FORGOTTEN]


def _newest_first(instance: dg.DagsterInstance, job_name: str, *, as_of: datetime) -> list[_Run]:
    """Return the runs of a job, by the time at which they ended; none where none failed."""
    failed = _ended(instance, job_name, dg.DagsterRunStatus.FAILURE, limit=FAILURES, as_of=as_of)
    if not failed:
        return []
    succeeded = _ended(instance, job_name, dg.DagsterRunStatus.SUCCESS, limit=SUCCESSES, as_of=as_of)
    return sorted([*failed, *succeeded], key=lambda one: one.ended_at, reverse=True)


def follow_jobs(
    instance: dg.DagsterInstance, names: Iterable[str], *, as_of: datetime, idle: Collection[str] = ()
) -> "Sight":
    """Return the jobs of which a run has failed that no later one has made good for. One that is retried says nothing.

    `idle`: jobs that run only when there is something to do, and have nothing left to do: nothing is wrong any more.
    """
    from loyalty_pipelines.domain.alerts import Sight

    symptoms, undecided = [], set()
    for name in names:
        if name in idle:
            continue
        for failed in _open_failures(_newest_first(instance, name, as_of=as_of)):
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


def _failure(instance: dg.DagsterInstance, name: str, failed: _Run, *, what: str = "") -> "Symptom | None":
    """Return what to say of a failed run of a job, or of what else; None: its checks say it all."""
    from loyalty_pipelines.domain.alerts import Source, State, Symptom

    run = failed.run
    errors = _step_errors(instance, run.run_id)
    if _is_of_checks_only(instance, run.run_id) or (errors and all(kind == CHECK_FAILED for kind, _ in errors)):
        return None
    told = [text.split(": ", maxsplit=1)[-1] if kind in WORDED else kind for kind, text in errors]
    return Symptom(
        name=name,
        source=Source.JOB,
        state=State.RED,
        title=f"{what or name} failed",
        detail=told[0] if told else "The run ended before any of its steps failed: its worker was lost, or stopped.",
        since=failed.ended_at,
        place=f"/runs/{run.run_id}",
        asset=name if what else "",
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

    symptoms: dict[str, Symptom] = {}
    undecided: set[str] = set()
    by_hand = _newest_first(instance, BY_HAND, as_of=as_of)
    if not by_hand:
        return Sight()
    later = {name: _ended(instance, name, dg.DagsterRunStatus.SUCCESS, limit=SUCCESSES, as_of=as_of) for name in jobs}

    def is_open(key: dg.AssetKey, failed: _Run) -> bool:
        return not _is_made_since(key, failed, by_hand, jobs, later)

    failures = [one for one in by_hand if one.has_failed]
    # Of most of them the logs need not be read.
    chosen = [
        one
        for one in failures
        if not one.run.asset_selection or any(is_open(key, one) for key in one.run.asset_selection)
    ]
    for failed in chosen[:READ]:
        keys = [key for key in _not_made(instance, failed) if is_open(key, failed)]
        names = {f"{BY_HAND_GROUP}/{key.to_user_string()}": key for key in keys}
        if names and is_retried(instance, failed.record, as_of=as_of):
            undecided.update(names)
            continue
        for name, key in names.items():
            what = f"{key.to_user_string()}, started by hand,"
            if name not in symptoms and (symptom := _failure(instance, name, failed, what=what)):
                symptoms[name] = symptom
    return Sight(symptoms=tuple(symptoms.values()), undecided=frozenset(undecided))


def _is_made_since(
    key: dg.AssetKey,
    failed: _Run,
    by_hand: Sequence[_Run],
    jobs: Mapping[str, frozenset[dg.AssetKey]],
    later: Mapping[str, Sequence[_Run]],
) -> bool:
    """Return whether a later run has made an asset that a failed one did not."""
    others = [one for one in by_hand if not one.has_failed and key in (one.run.asset_selection or {key})]
    of_jobs = [one for name, runs in later.items() if key in jobs[name] for one in runs]
    return any(one.ended_at > failed.ended_at and one.makes_good_for(failed) for one in (*others, *of_jobs))


def _not_made(instance: dg.DagsterInstance, failed: _Run) -> list[dg.AssetKey]:
    """Return the assets that a run was to make and whose step did not succeed."""
    wanted = {dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, dg.DagsterEventType.STEP_SUCCESS}
    events = [one.dagster_event for one in instance.all_logs(failed.run.run_id, of_type=wanted) if one.dagster_event]
    done = {one.step_key for one in events if one.event_type == dg.DagsterEventType.STEP_SUCCESS}
    return sorted({one.asset_key for one in events if one.asset_key and one.step_key not in done})
