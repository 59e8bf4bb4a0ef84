"""What the schedules start, on a Dagster instance of their own."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from loyalty_pipelines.definitions import defs
from loyalty_pipelines.schedules import RANGE_END, RANGE_START


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance in files: a schedule opens it once more by its reference."""
    monkeypatch.setenv("LOYALTY_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/unused")
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


def tick(instance: dg.DagsterInstance):
    """Evaluate one tick of the sweep's schedule."""
    with dg.build_schedule_context(instance) as context:
        return defs.resolve_schedule_def("sweep_schedule").evaluate_tick(context)


def test_the_sweep_covers_all_merchants_in_one_run(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("merchant", ["m1", "m2", "m3"])
    (request,) = tick(instance).run_requests or []
    assert (request.tags[RANGE_START], request.tags[RANGE_END]) == ("m1", "m3")


def test_without_merchants_there_is_nothing_to_sweep(instance: dg.DagsterInstance) -> None:
    assert tick(instance).skip_message == "There are no merchants yet."


def test_a_sweep_does_not_start_beside_one_that_runs(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("merchant", ["m1"])
    run = instance.create_run_for_job(defs.resolve_job_def("sweep_points_job"), status=dg.DagsterRunStatus.STARTED)
    assert tick(instance).skip_message == f"Sweep {run.run_id} is not finished yet."
