"""Pushing metrics from Dagster: the job with its schedule, and the end of a nightly run."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from loyalty_pipelines.definitions import defs
from loyalty_pipelines.schedules import RANGE_END, RANGE_START
from tests.metrics import parsed
from tests.pushgateway import Pushgateway, pushgateway
from tests.shop import Shop

VARIABLE = "LOYALTY_METRICS_PUSH_URL"
NOBODY = "http://ops:secret@127.0.0.1:1"


@pytest.fixture
def instance(shop: Shop, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An ephemeral instance whose runs use the test's database."""
    monkeypatch.setenv("LOYALTY_DATABASE_URL", database_url)
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance in files: a schedule opens it once more by its reference."""
    monkeypatch.setenv("LOYALTY_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/unused")
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pushgateway]:
    with pushgateway() as made:
        monkeypatch.setenv(VARIABLE, made.url())
        yield made


def push(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def("push_metrics_job").execute_in_process(instance=instance, raise_on_error=False)


def night(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """Run a night's expiry of m1."""
    instance.add_dynamic_partitions("merchant", ["m1"])
    return defs.resolve_job_def("expire_points_job").execute_in_process(
        instance=instance,
        raise_on_error=False,
        tags={RANGE_START: "m1", RANGE_END: "m1"},
        run_config={"ops": {"expiry": {"config": {"dry_run": False}}}},
    )


def said(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return all that a run has logged."""
    return "\n".join(entry.user_message for entry in instance.all_logs(run_id))


def tick(instance: dg.DagsterInstance):
    with dg.build_schedule_context(instance) as context:
        return defs.resolve_schedule_def("push_metrics_schedule").evaluate_tick(context)


def test_the_job_pushes_what_is_measured(shop: Shop, instance: dg.DagsterInstance, gateway: Pushgateway) -> None:
    shop.order("1", "10.00")
    shop.award()
    assert push(instance).success
    (pushed,) = gateway.pushed
    assert parsed(pushed.body)["loyalty_liability_points"] == {("m1",): 10}


def test_the_job_fails_with_the_reason_when_the_gateway_is_dead(
    shop: Shop, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, NOBODY)
    result = push(instance)
    failure = result.failure_data_for_node("push_metrics")
    assert failure and "The Pushgateway at http://127.0.0.1:1 did not take the metrics" in failure.error_display_string
    assert "secret" not in failure.error_display_string + said(instance, result.run_id)
    assert len(instance.get_runs()) == 1


def test_a_night_pushes_at_its_end(shop: Shop, instance: dg.DagsterInstance, gateway: Pushgateway) -> None:
    shop.program(points_expiration_days=30)
    assert night(instance).success
    (pushed,) = gateway.pushed
    assert ("expired_points", "m1") in parsed(pushed.body)["loyalty_job_last_success_timestamp_seconds"]


def test_a_night_that_failed_pushes_that(shop: Shop, instance: dg.DagsterInstance, gateway: Pushgateway) -> None:
    shop.program(points_expiration_days=30)
    shop.run("ALTER TABLE loyalty.expiry_runs RENAME COLUMN accounts_due TO renamed")
    shop.run("UPDATE loyalty.accounts SET expires_at = now()")
    shop.order("1", "10.00")
    shop.award()
    assert not night(instance).success
    (pushed,) = gateway.pushed
    assert ("expired_points", "m1") in parsed(pushed.body)["loyalty_job_last_failure_timestamp_seconds"]


def test_a_dead_gateway_fails_no_night(
    shop: Shop, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.program(points_expiration_days=30)
    monkeypatch.setenv(VARIABLE, NOBODY)
    result = night(instance)
    assert result.success
    log = said(instance, result.run_id)
    assert "The metrics after this step were not pushed: The Pushgateway at http://127.0.0.1:1" in log
    assert "secret" not in log
    monkeypatch.setenv(VARIABLE, "nonsense")
    result = night(instance)
    assert result.success
    assert "LOYALTY_METRICS_PUSH_URL has no http://" in said(instance, result.run_id)


def test_without_an_address_a_night_pushes_nothing_and_says_nothing(shop: Shop, instance: dg.DagsterInstance) -> None:
    result = night(instance)
    assert result.success
    assert "push" not in said(instance, result.run_id).lower().replace("push_after", "")


def test_the_schedule_waits_for_an_address_and_for_its_own_run(
    in_files: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tick(in_files).skip_message == f"{VARIABLE} is not set."
    monkeypatch.setenv(VARIABLE, NOBODY)
    assert tick(in_files).run_requests
    run = in_files.create_run_for_job(defs.resolve_job_def("push_metrics_job"), status=dg.DagsterRunStatus.STARTED)
    assert tick(in_files).skip_message == f"Run {run.run_id} is not finished yet."


def test_a_failed_merchant_of_a_live_run_is_noted(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.merchant("m2")
    for merchant in ("m1", "m2"):
        shop.order("1", "10.00", merchant=merchant)
    shop.run(
        "CREATE FUNCTION break_m1() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.merchant_id = 'm1' THEN RAISE undefined_column; END IF; RETURN NEW; END $$"
    )
    shop.run("CREATE TRIGGER break_m1 BEFORE INSERT ON loyalty.ledger_entries FOR EACH ROW EXECUTE FUNCTION break_m1()")
    result = defs.resolve_job_def("award_points_job").execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    (row,) = shop.rows("SELECT * FROM loyalty.merchant_jobs")
    assert (row.merchant_id, row.job, row.failed_run_id) == ("m1", "live_awards", result.run_id)
