"""The queue's sensor, job and check, and the job of the holds, on a real, ephemeral Dagster instance."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from loyalty_pipelines.assets.holds import RELEASED_HOLDS
from loyalty_pipelines.assets.reconciliation_queue import RECONCILIATION_QUEUE
from loyalty_pipelines.db import sources
from loyalty_pipelines.definitions import defs
from loyalty_pipelines.resources.database import LedgerDatabase
from tests.checkout import Checkout
from tests.queued import Queue
from tests.shop import Shop

TOO_MANY = 1_000_000
JOB = "drain_reconciliation_queue_job"


@pytest.fixture
def instance(shop: Shop, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An ephemeral instance whose runs use the test's database."""
    monkeypatch.setenv("LOYALTY_DATABASE_URL", database_url)
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def in_files(
    shop: Shop, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """An instance in files: a schedule opens it once more by its reference."""
    monkeypatch.setenv("LOYALTY_DATABASE_URL", database_url)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


@pytest.fixture
def waiting(shop: Shop) -> Queue:
    """The queue, empty; ann has 100 points."""
    shop.order("first", "100.00")
    shop.award()
    return Queue(shop)


def run_job(name: str, instance: dg.DagsterInstance, **options) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def(name).execute_in_process(instance=instance, raise_on_error=False, **options)


def tick(instance: dg.DagsterInstance, database_url: str):
    """Evaluate one tick of the queue's sensor."""
    with dg.build_sensor_context(instance, resources={"ledger": LedgerDatabase(url=database_url)}) as context:
        return defs.resolve_sensor_def("reconciliation_queue_sensor").evaluate_tick(context)


def hold_tick(instance: dg.DagsterInstance, database_url: str):
    """Evaluate one tick of the holds' schedule."""
    with dg.build_schedule_context(instance, resources={"ledger": LedgerDatabase(url=database_url)}) as context:
        return defs.resolve_schedule_def("release_holds_schedule").evaluate_tick(context)


def newest(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, object]:
    """Return the metadata of the newest materialization."""
    record = instance.fetch_materializations(key, limit=1).records[0]
    assert record.asset_materialization
    return {name: value.value for name, value in record.asset_materialization.metadata.items()}


def check(instance: dg.DagsterInstance) -> tuple[dg.AssetCheckEvaluation, bool]:
    """Run the checks' job; return the queue's check and whether the run succeeded."""
    result = run_job("award_checks_job", instance)
    (found,) = [
        one for one in result.get_asset_check_evaluations() if one.check_name == "few_updates_wait_in_the_queue"
    ]
    return found, result.success


def make_older(shop: Shop, interval: str) -> None:
    shop.run(
        "UPDATE loyalty.reconciliation_queue SET created_at = now() - CAST(:interval AS interval)", interval=interval
    )


def test_what_is_due_starts_a_run_that_applies_it(
    shop: Shop, waiting: Queue, instance: dg.DagsterInstance, database_url: str
) -> None:
    assert tick(instance, database_url).skip_message == "Nothing waits."
    number = waiting.report("o", 25, 50)
    (request,) = tick(instance, database_url).run_requests or []
    assert request.run_key is None
    result = run_job(JOB, instance)
    assert result.success
    assert (shop.balance(), waiting.item(number).run_id) == (75, result.run_id)
    assert shop.rows("SELECT DISTINCT actor, run_id FROM loyalty.ledger_entries WHERE reference_id = 'o'") == [
        ("reconciliation_queue", result.run_id)
    ]
    assert newest(instance, RECONCILIATION_QUEUE)["applied"] == 1
    assert tick(instance, database_url).skip_message == "Nothing waits."


def test_what_failed_waits_for_its_time_and_what_is_parked_for_somebody(
    shop: Shop, waiting: Queue, instance: dg.DagsterInstance, database_url: str
) -> None:
    number = waiting.report("o", 0, TOO_MANY)
    config = {"ops": {"loyalty__reconciliation_queue": {"config": {"max_tries": 2, "first_wait_seconds": 7}}}}
    assert run_job(JOB, instance, run_config=config).success, "an item that fails is not a run that fails"
    assert 7 <= waiting.wait_before_next_try(number).total_seconds() <= 7.7
    assert tick(instance, database_url).skip_message == "Nothing waits."
    waiting.wait()
    assert tick(instance, database_url).run_requests
    assert run_job(JOB, instance, run_config=config).success
    metadata = newest(instance, RECONCILIATION_QUEUE)
    assert (metadata["failed"], metadata["parked"]) == (0, 1)
    waiting.wait()
    assert tick(instance, database_url).skip_message == "Nothing waits."


def test_the_sensor_starts_no_second_run_beside_one_that_is_at_work(
    waiting: Queue, instance: dg.DagsterInstance, database_url: str
) -> None:
    waiting.report("o", 25, 0)
    run = instance.create_run_for_job(defs.resolve_job_def(JOB), status=dg.DagsterRunStatus.STARTED)
    assert tick(instance, database_url).skip_message == f"Run {run.run_id} is at work already."


def test_runs_of_other_jobs_do_not_keep_the_sensor_waiting(
    waiting: Queue, instance: dg.DagsterInstance, database_url: str
) -> None:
    waiting.report("o", 25, 0)
    instance.create_run_for_job(defs.resolve_job_def("award_points_job"), status=dg.DagsterRunStatus.STARTED)
    assert tick(instance, database_url).run_requests


def test_before_a_shop_is_mapped_the_sensor_waits_and_says_for_what(
    shop: Shop, waiting: Queue, instance: dg.DagsterInstance, database_url: str
) -> None:
    waiting.report("o", 25, 0)
    with shop.engine.begin() as conn:
        sources.withdraw(conn)
    assert "withdrawn" in (tick(instance, database_url).skip_message or "")
    assert not run_job(JOB, instance).success
    assert waiting.only_item().tries == 0


def test_a_failed_merchant_fails_the_run_after_the_others_are_done(
    shop: Shop, waiting: Queue, instance: dg.DagsterInstance, database_url: str
) -> None:
    shop.merchant("m2")
    for merchant in ("m1", "m2"):
        waiting.report("o", 25, 0, merchant_id=merchant)
    shop.run(
        "CREATE FUNCTION break_m1() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.merchant_id = 'm1' THEN RAISE undefined_column; END IF; RETURN NEW; END $$"
    )
    shop.run("CREATE TRIGGER break_m1 BEFORE INSERT ON loyalty.ledger_entries FOR EACH ROW EXECUTE FUNCTION break_m1()")
    result = run_job(JOB, instance)
    assert not result.success
    failure = result.failure_data_for_node("loyalty__reconciliation_queue")
    assert failure and "1 merchant failed, all others are done: m1" in failure.error_display_string
    assert (shop.balance(merchant="m2"), newest(instance, RECONCILIATION_QUEUE)["applied"]) == (25, 1)
    assert "failed less than a minute ago" in (tick(instance, database_url).skip_message or "")


# --- the check ---


def test_an_empty_queue_is_green(shop: Shop, waiting: Queue, instance: dg.DagsterInstance) -> None:
    found, is_success = check(instance)
    assert (found.passed, is_success, found.metadata["unresolved"].value) == (True, True, 0)


def test_the_check_counts_what_is_at_stake_per_merchant(
    shop: Shop, waiting: Queue, instance: dg.DagsterInstance
) -> None:
    shop.merchant("m2")
    waiting.report("o", 25, 50)
    waiting.report("o", 5, 0, merchant_id="m2")
    waiting.report("p", 5, 0, merchant_id="m2")
    found, _ = check(instance)
    assert found.passed
    assert (found.metadata["unresolved"].value, found.metadata["points at stake"].value) == (3, 85)
    rows = found.metadata["merchants"].value.records  # type: ignore[union-attr]
    assert {row.data["merchant_id"]: row.data["points_at_stake"] for row in rows} == {"m1": 75, "m2": 10}


def test_an_item_that_waits_for_an_hour_turns_the_check_yellow(
    shop: Shop, waiting: Queue, instance: dg.DagsterInstance
) -> None:
    waiting.report("o", 0, TOO_MANY)
    make_older(shop, "59 minutes")
    assert check(instance)[0].passed
    make_older(shop, "61 minutes")
    found, is_success = check(instance)
    assert (found.passed, found.severity, is_success) == (False, dg.AssetCheckSeverity.WARN, True)


def test_a_parked_item_turns_the_check_yellow_at_once(shop: Shop, waiting: Queue, instance: dg.DagsterInstance) -> None:
    waiting.report("o", 0, TOO_MANY)
    waiting.tried(max_tries=1)
    found, is_success = check(instance)
    assert (found.passed, found.severity, is_success) == (False, dg.AssetCheckSeverity.WARN, True)
    assert found.metadata["parked"].value == 1


def test_an_item_that_waits_for_a_day_turns_the_check_red_and_fails_its_run(
    shop: Shop, waiting: Queue, instance: dg.DagsterInstance
) -> None:
    waiting.report("o", 0, TOO_MANY)
    make_older(shop, "23 hours")
    assert check(instance)[0].severity == dg.AssetCheckSeverity.WARN
    make_older(shop, "25 hours")
    found, is_success = check(instance)
    assert (found.passed, found.severity, is_success) == (False, dg.AssetCheckSeverity.ERROR, False)


# --- holds ---


def test_a_stale_hold_starts_a_run_that_releases_it(
    shop: Shop, waiting: Queue, instance: dg.DagsterInstance, in_files: dg.DagsterInstance, database_url: str
) -> None:
    Checkout(shop.engine).reserve("o", 60)
    assert hold_tick(in_files, database_url).skip_message == "No hold is past its time."
    shop.run("UPDATE loyalty.holds SET expires_at = now() - interval '1 second'")
    assert len(hold_tick(in_files, database_url).run_requests or []) == 1
    assert run_job("release_holds_job", instance).success
    metadata = newest(instance, RELEASED_HOLDS)
    assert (metadata["holds"], metadata["points"], metadata["holds still locked"]) == (1, 60, 0)
    assert (shop.account().held, shop.problems()) == (0, [])
    assert hold_tick(in_files, database_url).skip_message == "No hold is past its time."


def test_no_second_release_starts_beside_one_that_runs(
    shop: Shop, waiting: Queue, in_files: dg.DagsterInstance, database_url: str
) -> None:
    Checkout(shop.engine).reserve("o", 60)
    shop.run("UPDATE loyalty.holds SET expires_at = now() - interval '1 second'")
    run = in_files.create_run_for_job(defs.resolve_job_def("release_holds_job"), status=dg.DagsterRunStatus.STARTED)
    assert hold_tick(in_files, database_url).skip_message == f"Run {run.run_id} is not finished yet."


def test_a_hold_that_is_refused_fails_the_run_after_the_others_are_released(
    shop: Shop, waiting: Queue, instance: dg.DagsterInstance
) -> None:
    shop.order("first of bea", "100.00", customer="bea")
    shop.award()
    checkout = Checkout(shop.engine)
    checkout.reserve("bad", 60)
    checkout.reserve("good", 60, "bea")
    shop.run("UPDATE loyalty.holds SET expires_at = now() - interval '1 second'")
    shop.run("UPDATE loyalty.accounts SET held = 0 WHERE customer_id = 'ann'")
    result = run_job("release_holds_job", instance)
    assert not result.success
    failure = result.failure_data_for_node("loyalty__released_holds")
    assert failure and "1 merchant failed, all others are done: m1: order bad" in failure.error_display_string
    assert (shop.account("bea").held, newest(instance, RELEASED_HOLDS)["points"]) == (0, 60)
