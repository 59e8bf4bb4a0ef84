"""Reports on a real Dagster instance: one run for all merchants, the check, the schedule."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from loyalty_pipelines.assets.reports import POINTS_LIABILITY, RECENT_ACTIVITY, REDEMPTION_STATS
from loyalty_pipelines.definitions import defs
from loyalty_pipelines.schedules import RANGE_END, RANGE_START, SCHEDULE_NAME
from tests.checkout import Checkout
from tests.shop import Shop

JOB = "reports_job"


@pytest.fixture
def instance(
    shop: Shop, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """An ephemeral instance whose runs use the test's database and write to `reports` in the test's folder."""
    monkeypatch.setenv("LOYALTY_DATABASE_URL", database_url)
    monkeypatch.setenv("LOYALTY_REPORTS_URL", str(tmp_path / "reports"))
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def earned(shop: Shop, **points: int) -> None:
    """Let merchants have a customer with points, each."""
    for merchant, total in points.items():
        if merchant != "m1":
            shop.merchant(merchant, point_value_amount="0.01")
        shop.order(f"o-{merchant}", total, customer="kunigunde", merchant=merchant)
    shop.award()


def report(instance: dg.DagsterInstance, *merchants: str, **config) -> dg.ExecuteInProcessResult:
    """Write the reports of the merchants, in one run."""
    instance.add_dynamic_partitions("merchant", list(merchants))
    return defs.resolve_job_def(JOB).execute_in_process(
        instance=instance,
        raise_on_error=False,
        tags={RANGE_START: merchants[0], RANGE_END: merchants[-1]},
        run_config={"ops": {"reports": {"config": config}}},
    )


def newest(instance: dg.DagsterInstance, key: dg.AssetKey, merchant: str) -> dict:
    """Return the metadata of a merchant's newest materialization of a report."""
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[merchant])
    record = instance.fetch_materializations(wanted, limit=1).records[0]
    assert record.asset_materialization
    return {name: value.value for name, value in record.asset_materialization.metadata.items()}


def check(instance: dg.DagsterInstance) -> dg.AssetCheckEvaluation:
    """Run the check; its run fails exactly when it is red."""
    result = defs.resolve_job_def("report_checks_job").execute_in_process(instance=instance, raise_on_error=False)
    (found,) = result.get_asset_check_evaluations()
    assert (found.check_name, found.severity) == ("liability_equals_the_sum_of_balances", dg.AssetCheckSeverity.ERROR)
    assert result.success == found.passed
    return found


def jobs(shop: Shop) -> list[tuple]:
    """Return which reports were written or failed for which merchants, in which runs."""
    return shop.rows(
        "SELECT merchant_id, job, succeeded_run_id, failed_run_id FROM loyalty.merchant_jobs ORDER BY 1, 2"
    )


def test_a_run_writes_the_reports_of_all_merchants_and_materializes_each(
    shop: Shop, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    earned(shop, m1=100, m2=2500, gone=40)
    Checkout(shop.engine).redeem("r1", 500, "kunigunde", merchant="m2")
    shop.run("DELETE FROM sample_shop.merchants WHERE id = 'gone'")
    result = report(instance, "m1", "m2", everybody=True)
    assert result.success
    owed = newest(instance, POINTS_LIABILITY, "m2")
    assert (owed["closing points"], owed["worth"], owed["currency"]) == (2000, 20.0, "EUR")
    assert (owed["earned this month"], owed["spent this month"], owed["difference to balances"]) == (2500, 500, 0)
    page = Path(owed["liability.html"])
    assert page.parent.name == result.run_id and page.parent.parent.parent == tmp_path / "reports" / "points_liability"
    assert "gone" in page.read_text() and "m1" in page.read_text()
    assert result.run_id in (tmp_path / "reports" / "points_liability" / "latest.html").read_text()
    assert newest(instance, REDEMPTION_STATS, "m2")["points this month"] == 500
    assert newest(instance, REDEMPTION_STATS, "m1")["redemptions this month"] == 0
    latest = newest(instance, RECENT_ACTIVITY, "m2")
    assert (latest["entries"], latest["points added"], latest["points taken"]) == (2, 2500, 500)
    assert "kunigunde" in Path(latest["activity.csv"]).read_text()
    assert "kunigunde" not in "".join(str(entry.dagster_event) for entry in instance.all_logs(result.run_id))
    names = ("points_liability", "recent_activity", "redemption_stats")
    assert jobs(shop) == [(merchant, name, result.run_id, None) for merchant in ("gone", "m1", "m2") for name in names]


def test_one_merchant_by_hand_gets_its_own_files_and_leaves_the_newest_of_all(
    shop: Shop, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    earned(shop, m1=100, m2=30)
    result = report(instance, "m2")
    assert result.success
    page = Path(newest(instance, POINTS_LIABILITY, "m2")["liability.html"])
    assert "m1" not in page.read_text().split("</style>")[1]
    assert not list((tmp_path / "reports").rglob("latest.html"))


def test_a_place_that_refuses_fails_the_run_with_the_reason(
    shop: Shop, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earned(shop, m1=100)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOYALTY_REPORTS_URL", str(tmp_path / "file"))
    result = report(instance, "m1")
    failure = result.filter_events(lambda one: one.is_step_failure)[0]
    assert "could not be written" in str(failure.event_specific_data)
    assert jobs(shop) == [("m1", "points_liability", None, result.run_id)]
    monkeypatch.setenv("LOYALTY_REPORTS_URL", "s3://key:hidden@bucket/x")
    result = report(instance, "m1")
    said = "".join(f"{one.message} {one.dagster_event}" for one in instance.all_logs(result.run_id))
    assert not result.success and "Install s3fs" in said and "hidden" not in said


def test_a_merchant_that_cannot_be_computed_fails_the_run_after_the_others_are_done(
    shop: Shop, instance: dg.DagsterInstance
) -> None:
    earned(shop, m1=100, m2=30)
    shop.run("ALTER TABLE loyalty.ledger_entries DROP CONSTRAINT ledger_entries_kind_is_known")
    shop.run("ALTER TABLE loyalty.ledger_entries DISABLE TRIGGER USER")
    shop.run("UPDATE loyalty.ledger_entries SET kind = 'gift' WHERE merchant_id = 'm2'")
    result = report(instance, "m1", "m2")
    assert not result.success
    (failure,) = result.filter_events(lambda one: one.is_step_failure)
    assert "points_liability: The ledger of merchant m2 has entries of kind gift" in str(failure.event_specific_data)
    assert newest(instance, POINTS_LIABILITY, "m1")["closing points"] == 100
    done = {(merchant, name): failed is None for merchant, name, _, failed in jobs(shop)}
    assert [key for key, is_done in done.items() if not is_done] == [("m2", "points_liability")]
    found = check(instance)
    assert not found.passed and "m2: The ledger" in (found.description or "")


def test_the_check_is_green_until_a_balance_is_changed_past_the_ledger(
    shop: Shop, instance: dg.DagsterInstance
) -> None:
    earned(shop, m1=100, m2=2500)
    found = check(instance)
    assert found.passed
    assert found.metadata["closing points"].value == 2600
    shop.run("UPDATE loyalty.accounts SET balance = balance + 60 WHERE merchant_id = 'm2'")
    found = check(instance)
    assert not found.passed
    assert found.description == "m2: balances have +60 points"
    table = found.metadata["differences"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [dict(one.data) for one in table.records] == [
        {"merchant_id": "m2", "ledger": 2500, "balances": 2560, "difference": 60, "worth": "0.60 EUR"}
    ]


def test_the_schedule_reports_everybody_in_one_run_at_five(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOYALTY_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/unused")
    schedule = defs.resolve_schedule_def("reports_schedule")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 5 * * *", "UTC")
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:

        def tick():
            with dg.build_schedule_context(instance) as context:
                return schedule.evaluate_tick(context)

        assert tick().skip_message == "There are no merchants yet."
        instance.add_dynamic_partitions("merchant", ["m1", "m2"])
        (request,) = tick().run_requests or []
        assert (request.tags[RANGE_START], request.tags[RANGE_END]) == ("m1", "m2")
        assert request.run_config == {"ops": {"reports": {"config": {"everybody": True}}}}
        run = instance.create_run_for_job(
            defs.resolve_job_def(JOB),
            status=dg.DagsterRunStatus.STARTED,
            tags={SCHEDULE_NAME: "reports_schedule"},
            run_config=request.run_config,
        )
        assert tick().skip_message == f"Reports run {run.run_id} is not finished yet."
