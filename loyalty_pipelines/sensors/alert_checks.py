"""Results of asset checks: red, yellow, none because their run failed, or none lately."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import TYPE_CHECKING

import dagster as dg

from loyalty_pipelines.jobs import IN_FLIGHT
from loyalty_pipelines.sensors.alert_runs import is_retried

if TYPE_CHECKING:
    from loyalty_pipelines.domain.alerts import Sight, Symptom

# All checks run by the hour or by the night.
OLD_AFTER = timedelta(hours=26)
SHOWN_OLD = 10
# How checks call the number of merchants at which something is wrong; the first that is there counts.
TOTALS = ("merchants that differ", "merchants")


class _Newest(Enum):
    """The newest run of a check that has no result of it yet."""

    NONE = auto()
    # Or cancelled: it has not said anything.
    UNDER_WAY = auto()
    FAILED = auto()


def follow_checks(instance: dg.DagsterInstance, keys: Iterable[dg.AssetCheckKey], *, as_of: datetime) -> "Sight":
    """Return the checks whose latest result is red or yellow, that could not run, or that were not run lately.

    One that is red stays red while nobody can look again. A check that never ran is no problem, and ends none: its
    results may have been removed.
    """
    from loyalty_pipelines.domain.alerts import Sight

    symptoms, undecided = [], set()
    results: dict[str, datetime] = {}
    runs: dict[str, _Newest] = {}
    for key, record in instance.event_log_storage.get_asset_check_summary_records(list(keys)).items():
        last, completed = record.last_check_execution_record, record.last_completed_check_execution_record
        symptom = None
        if completed is not None:
            results[key.name] = datetime.fromtimestamp(completed.create_timestamp, UTC)
            symptom = _result(key, completed.evaluation, completed.create_timestamp)
        newest = _Newest.NONE
        if last is not None and last.status.value == "PLANNED":
            if last.run_id not in runs:
                runs[last.run_id] = _newest(instance, last.run_id, as_of=as_of)
            newest = runs[last.run_id]
        if newest is _Newest.FAILED and last is not None:
            symptoms.append(_still(symptom) if symptom else _could_not_run(key, last.run_id, last.create_timestamp))
        elif symptom is not None:
            symptoms.append(symptom)
        elif completed is None or newest is _Newest.UNDER_WAY:
            # What is being looked at now has no result: what it was before stays until then.
            undecided.add(key.name)
    old = {name: at for name, at in results.items() if at < as_of - OLD_AFTER}
    if old:
        symptoms.append(_old_checks(old))
    return Sight(symptoms=tuple(symptoms), undecided=frozenset(undecided))


def _newest(instance: dg.DagsterInstance, run_id: str, *, as_of: datetime) -> _Newest:
    """Return how the run is that was to have a result."""
    record = instance.get_run_record_by_id(run_id)
    status = record.dagster_run.status if record else None
    if record and status == dg.DagsterRunStatus.FAILURE:
        return _Newest.UNDER_WAY if is_retried(instance, record, as_of=as_of) else _Newest.FAILED
    # A cancelled one says nothing, as before it had begun.
    return _Newest.UNDER_WAY if status in (*IN_FLIGHT, dg.DagsterRunStatus.CANCELED) else _Newest.NONE


def _still(symptom: "Symptom") -> "Symptom":
    """Return what is known to be wrong, though nobody could look again."""
    return replace(symptom, detail=f"{symptom.detail} Its newest run failed before it had a result.".strip())


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
        merchants_total=_total(values),
        numbers={
            name: value
            for name, value in values.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        },
        place=check_page(key),
        asset=key.asset_key.to_user_string(),
    )


def _merchants(metadata: Mapping[str, dg.MetadataValue]) -> tuple[str, ...]:
    """Return the merchants that a result's tables name, in their order."""
    tables = [one for one in metadata.values() if isinstance(one, dg.TableMetadataValue)]
    named = [row.data.get("merchant_id") for table in tables for row in table.records]
    return tuple(dict.fromkeys(one for one in named if isinstance(one, str) and one))


def _total(values: Mapping[str, object]) -> int:
    """Return at how many merchants it is so, where a result says it: its tables have the first."""
    total = next((values[name] for name in TOTALS if name in values), 0)
    return total if isinstance(total, int) else 0


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


def check_page(key: dg.AssetCheckKey) -> str:
    return f"/assets/{'/'.join(key.asset_key.path)}?view=checks&checkDetail={key.name}"
