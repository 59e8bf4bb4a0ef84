"""adjust_points_job on a real, ephemeral Dagster instance and a real database."""

from typing import Any

import dagster as dg
import pytest

from loyalty_pipelines.db import sources
from loyalty_pipelines.definitions import defs
from tests.integration.test_dagster_awards import instance  # noqa: F401 - a fixture
from tests.shop import Shop

JOB = "adjust_points_job"


@pytest.fixture
def shop(shop: Shop) -> Shop:
    """The shop, with ann who has earned 100 points."""
    shop.order("first", "100.00")
    shop.award()
    return shop


def config(points: int, **more: Any) -> dict[str, Any]:
    values = {"merchant_id": "m1", "customer_id": "ann", "points": points, "reason": "ticket 7", "actor": "eve", **more}
    return {"ops": {"adjust_points": {"config": values}}}


def run(instance: dg.DagsterInstance, points: int, **more: Any) -> dg.ExecuteInProcessResult:  # noqa: F811
    job = defs.resolve_job_def(JOB)
    return job.execute_in_process(instance=instance, run_config=config(points, **more), raise_on_error=False)


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.get_step_success_events()
    outputs = [one for one in result.all_events if one.is_successful_output and one.step_key == event.step_key]
    return {name: one.value for name, one in outputs[0].step_output_data.metadata.items()}


def error(result: dg.ExecuteInProcessResult) -> str:
    assert not result.success
    failure = result.failure_data_for_node("adjust_points")
    assert failure
    return failure.error_display_string


def test_a_run_is_a_dry_run_unless_it_is_told_otherwise(shop: Shop, instance: dg.DagsterInstance) -> None:  # noqa: F811
    result = run(instance, 25)
    assert result.success
    found = metadata(result)
    assert (found["balance before"], found["balance after"], found["dry run"]) == (100, 125, True)
    assert shop.entries() == [("earned", 100)]


def test_an_adjustment_names_its_run_reason_and_actor(shop: Shop, instance: dg.DagsterInstance) -> None:  # noqa: F811
    result = run(instance, -25, dry_run=False)
    assert result.success
    (entry,) = shop.rows("SELECT * FROM loyalty.ledger_entries WHERE kind = 'adjusted'")
    assert (entry.points, entry.reason, entry.actor) == (-25, "ticket 7", "eve")
    assert (entry.run_id, entry.reference_id) == (result.run_id, result.run_id)
    assert metadata(result)["balance after"] == shop.balance() == 75
    assert shop.problems() == []


def the_job() -> dg.JobDefinition:
    """The job as a new process finds it."""
    return defs.resolve_job_def(JOB)


def test_a_re_execution_of_a_run_adjusts_once(shop: Shop, instance: dg.DagsterInstance) -> None:  # noqa: F811
    job, values = dg.reconstructable(the_job), config(25, dry_run=False)
    with dg.execute_job(job, instance=instance, run_config=values) as first:
        assert first.success
    parent = first.run_id
    for _ in range(2):
        options = dg.ReexecutionOptions(parent_run_id=parent)
        with dg.execute_job(job, instance=instance, run_config=values, reexecution_options=options) as again:
            assert again.success
        parent = again.run_id
    assert shop.entries() == [("earned", 100), ("adjusted", 25)]
    options, others = dg.ReexecutionOptions(parent_run_id=first.run_id), config(26, dry_run=False)
    with dg.execute_job(job, instance=instance, run_config=others, reexecution_options=options) as refused:
        assert not refused.success
    assert shop.balance() == 125


def test_two_runs_are_two_adjustments_and_a_reference_of_ones_own_is_one(
    shop: Shop, instance: dg.DagsterInstance  # noqa: F811
) -> None:  # fmt: skip
    for _ in range(2):
        assert run(instance, 1, dry_run=False).success
        assert run(instance, 10, dry_run=False, reference="t7").success
    assert shop.balance() == 112
    assert "'t7' is an adjustment of +10 points" in error(run(instance, 11, dry_run=False, reference="t7"))


@pytest.mark.parametrize(
    ("points", "more", "says"),
    [
        (-101, {}, "Available: 100, requested: 101"),
        (0, {}, "expected a whole number, not 0"),
        (5, {"reason": " "}, "The reason is ' '"),
        (5, {"actor": ""}, "The actor is ''"),
        (5, {"customer_id": "nobody"}, "Customer 'nobody' has no account"),
        (5, {"merchant_id": "m11"}, "did you mean 'm1'"),
    ],
)
def test_what_is_refused_fails_the_run_without_retries(
    shop: Shop, instance: dg.DagsterInstance, points: int, more: dict[str, str], says: str  # noqa: F811
) -> None:  # fmt: skip
    result = run(instance, points, dry_run=False, **more)
    assert says in error(result)
    assert not [one for one in result.all_events if one.is_step_up_for_retry]
    assert shop.entries() == [("earned", 100)]


def test_reason_and_actor_are_required(instance: dg.DagsterInstance) -> None:  # noqa: F811
    job = defs.resolve_job_def(JOB)
    values = {"merchant_id": "m1", "customer_id": "ann", "points": 5}
    with pytest.raises(dg.DagsterInvalidConfigError, match=r"actor.*reason"):
        job.execute_in_process(instance=instance, run_config={"ops": {"adjust_points": {"config": values}}})


def test_behind_a_withdrawn_mapping_nothing_is_adjusted(shop: Shop, instance: dg.DagsterInstance) -> None:  # noqa: F811
    with shop.engine.begin() as conn:
        sources.withdraw(conn)
    assert "withdrawn" in error(run(instance, 5, dry_run=False))
    assert shop.balance() == 100
