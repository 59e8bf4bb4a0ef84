"""The assets on a real, ephemeral Dagster instance and a real database."""

from collections.abc import Iterator

import dagster as dg
import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from loyalty_pipelines.assets.awards import AWARDED_POINTS, LIVE_AWARDS, retrying_only_what_passes
from loyalty_pipelines.db import sources
from loyalty_pipelines.definitions import defs
from loyalty_pipelines.resources.database import LedgerDatabase
from loyalty_pipelines.schedules import RANGE_END, RANGE_START
from tests.shop import Shop


@pytest.fixture
def instance(shop: Shop, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An ephemeral instance whose runs use the test's database."""
    monkeypatch.setenv("LOYALTY_DATABASE_URL", database_url)
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def run_job(name: str, instance: dg.DagsterInstance, **options) -> dg.ExecuteInProcessResult:
    """Run a job of the definitions in this process."""
    return defs.resolve_job_def(name).execute_in_process(instance=instance, raise_on_error=False, **options)


def sweep(instance: dg.DagsterInstance, *merchants: str, **config) -> dg.ExecuteInProcessResult:
    """Sweep merchants in one run, as the schedule does."""
    instance.add_dynamic_partitions("merchant", list(merchants))
    return run_job(
        "sweep_points_job",
        instance,
        tags={RANGE_START: merchants[0], RANGE_END: merchants[-1]},
        run_config={"ops": {"awarded_points": {"config": config}}},
    )


def materialized(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str | None, dict]:
    """Return the metadata of the materializations of an asset, by partition."""
    records = instance.fetch_materializations(key, limit=100).records
    found = {}
    for record in records:
        assert record.asset_materialization
        assert record.partition_key not in found, f"{record.partition_key} is materialized twice"
        found[record.partition_key] = {k: v.value for k, v in record.asset_materialization.metadata.items()}
    return found


@pytest.mark.parametrize("name", ["paid_orders_sensor", "merchants_sensor"])
def test_before_a_shop_is_mapped_the_sensors_wait_and_say_for_what(name: str, database_url: str) -> None:
    sensor = defs.resolve_sensor_def(name)
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(instance, resources={"ledger": LedgerDatabase(url=database_url)}) as context,
    ):
        tick = sensor.evaluate_tick(context)
    assert "map yours with 'loyalty sources apply" in (tick.skip_message or "")


@pytest.mark.parametrize("job", ["award_points_job", "sweep_points_job"])
def test_behind_a_withdrawn_mapping_no_job_touches_inbox_or_queue(
    job: str, shop: Shop, instance: dg.DagsterInstance
) -> None:
    shop.order("queued", "NaN")
    shop.award()
    shop.order("1", "10")
    with shop.engine.begin() as conn:
        sources.withdraw(conn)
    result = sweep(instance, "m1") if job == "sweep_points_job" else run_job(job, instance)
    assert not result.success
    assert (shop.inbox(), shop.queued()) == (1, {"queued": "amount_invalid"})


def test_the_live_job_awards_what_waits_and_says_what_it_did(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.order("1", "19.99")
    assert run_job("award_points_job", instance).success
    assert shop.balance() == 19
    metadata = materialized(instance, LIVE_AWARDS)[None]
    assert (metadata["orders awarded"], metadata["points"]) == (1, 19)


def test_the_entry_names_the_run_that_wrote_it(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.order("1", "19.99")
    result = run_job("award_points_job", instance)
    assert shop.value("SELECT run_id FROM loyalty.ledger_entries") == result.run_id


def test_the_sweep_materializes_each_merchant_once(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.merchant("m2")
    shop.order("1", "10")
    shop.order("1", "20", merchant="m2")
    result = sweep(instance, "m1", "m2")
    assert result.success
    found = materialized(instance, AWARDED_POINTS)
    assert {key: found[key]["points"] for key in found} == {"m1": 10, "m2": 20}


def test_a_failed_merchant_does_not_hide_the_others(shop: Shop, instance: dg.DagsterInstance) -> None:
    for merchant in ("m2", "m3"):
        shop.merchant(merchant)
    for merchant in ("m1", "m2", "m3"):
        shop.order("1", "10", merchant=merchant)
    shop.run(
        "CREATE FUNCTION break_m2() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.merchant_id = 'm2' THEN RAISE undefined_column; END IF; RETURN NEW; END $$"
    )
    shop.run("CREATE TRIGGER break_m2 BEFORE INSERT ON loyalty.ledger_entries FOR EACH ROW EXECUTE FUNCTION break_m2()")
    result = sweep(instance, "m1", "m2", "m3")
    assert not result.success
    assert set(materialized(instance, AWARDED_POINTS)) == {"m1", "m3"}
    assert (shop.balance(merchant="m1"), shop.balance(merchant="m3")) == (10, 10)
    failure = result.failure_data_for_node("awarded_points")
    assert failure and "1 merchant failed, all others are done: m2" in failure.error_display_string


def test_a_dry_run_of_the_sweep_counts_and_writes_nothing(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.order("1", "10")
    assert sweep(instance, "m1", dry_run=True).success
    assert materialized(instance, AWARDED_POINTS) == {}
    (record,) = instance.fetch_observations(AWARDED_POINTS, limit=10).records
    assert record.asset_observation
    assert record.asset_observation.metadata["points to award"].value == 10
    assert shop.entries() == []


def test_a_backfill_of_a_period_awards_only_that_period(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.run("ALTER TABLE sample_shop.orders DISABLE TRIGGER ALL")
    shop.order("1", "10", paid_at="2025-01-15 12:00:00+00")
    shop.order("2", "20", paid_at="2025-02-15 12:00:00+00")
    assert sweep(instance, "m1", paid_from="2025-02-01T00:00:00+00:00", paid_to="2025-03-01T00:00:00+00:00").success
    assert shop.balance() == 20


def test_an_instant_without_a_zone_is_refused_before_anything_is_done(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.order("1", "10")
    result = sweep(instance, "m1", paid_from="2025-02-01")
    assert not result.success
    failure = result.failure_data_for_node("awarded_points")
    assert failure and "expected an instant with its zone" in failure.error_display_string
    assert shop.entries() == []


def checked(instance: dg.DagsterInstance) -> dict[str, dg.AssetCheckEvaluation]:
    """Run all award checks and return them by name; the run fails exactly when an error was found."""
    result = run_job("award_checks_job", instance)
    found = {found.check_name: found for found in result.get_asset_check_evaluations()}
    assert len(found) == 4
    errors = [one for one in found.values() if not one.passed and one.severity == dg.AssetCheckSeverity.ERROR]
    assert result.success == (not errors)
    return found


def test_every_check_is_green_when_everything_is_awarded(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.order("1", "10")
    shop.award()
    assert {name: found.passed for name, found in checked(instance).items()} == {
        "every_paid_order_has_its_points": True,
        "no_order_waits_long": True,
        "few_orders_are_missing": True,
        "few_updates_wait_in_the_queue": True,
    }


def test_a_paid_order_without_points_turns_its_check_red(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.run("ALTER TABLE sample_shop.orders DISABLE TRIGGER ALL")
    shop.order("1", "10", paid_at="2025-01-15 12:00:00+00")
    shop.run("UPDATE sample_shop.orders SET updated_at = paid_at")
    found = checked(instance)["every_paid_order_has_its_points"]
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert found.metadata["points missing"].value == 10


def test_points_of_an_order_that_is_not_paid_turn_the_check_red(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.order("1", "10", paid_at="2025-01-15 12:00:00+00")
    shop.award()
    shop.run("ALTER TABLE sample_shop.orders DISABLE TRIGGER ALL")
    shop.run("UPDATE sample_shop.orders SET status = 'cancelled', updated_at = paid_at")
    found = checked(instance)["every_paid_order_has_its_points"]
    assert (found.passed, found.metadata["points too many"].value) == (False, 10)


def test_an_order_that_waits_turns_the_lag_check_yellow(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.order("1", "10")
    shop.run("UPDATE loyalty.order_inbox SET enqueued_at = now() - interval '11 minutes'")
    found = checked(instance)["no_order_waits_long"]
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)


def test_orders_gone_from_the_shop_turn_the_rate_check_yellow(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.order("1", "10")
    shop.run("DELETE FROM sample_shop.orders")
    shop.award()
    found = checked(instance)["few_orders_are_missing"]
    assert (found.passed, found.metadata["percent"].value) == (False, 100.0)


def test_a_transient_error_is_retried_and_a_bug_is_not() -> None:
    lost = OperationalError("SELECT 1", None, psycopg.errors.AdminShutdown())
    with pytest.raises(OperationalError), retrying_only_what_passes():
        raise lost
    with pytest.raises(dg.Failure) as raised, retrying_only_what_passes():
        raise ValueError("a bug")
    assert (raised.value.allow_retries, raised.value.description) == (
        False,
        "Unexpected ValueError: a bug. Please report it.",
    )


def test_code_older_than_the_schema_writes_nothing_and_is_not_retried(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.order("1", "10")
    shop.run("UPDATE loyalty.schema_version SET version_num = '9999'")
    result = run_job("award_points_job", instance)
    assert not result.success
    assert shop.entries() == []
    failure = result.failure_data_for_node("loyalty__live_awards")
    assert failure
    assert "a newer release has upgraded this database" in failure.error_display_string
    assert [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"] == []


def test_no_customer_id_of_a_failed_statement_gets_into_the_event_log(shop: Shop, instance: dg.DagsterInstance) -> None:
    shop.order("1", "10", customer="ann@example.com")
    shop.run("ALTER TABLE loyalty.ledger_entries RENAME COLUMN actor TO performer")
    result = run_job("award_points_job", instance)
    assert not result.success
    logged = " ".join(f"{entry.message} {entry.dagster_event}" for entry in instance.all_logs(result.run_id))
    assert "actor" in logged
    assert "ann@example.com" not in logged
