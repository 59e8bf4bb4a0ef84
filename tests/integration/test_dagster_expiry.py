"""Expiry on a real Dagster instance and a real database: the run for all merchants, its parts, its schedule."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from loyalty_pipelines.assets.expiry import EXPIRED_POINTS, EXPIRY_PLAN, EXPIRY_WARNINGS
from loyalty_pipelines.db import sources
from loyalty_pipelines.definitions import defs
from loyalty_pipelines.schedules import RANGE_END, RANGE_START, SCHEDULE_NAME
from tests.expiry import Nights
from tests.shop import Shop

JOB = "expire_points_job"
# Points of 1 January go at the beginning of 1 February in Luxembourg, and are warned of 14 days before.
ACTIVE_AT = "2025-01-01T12:00:00+01:00"
WARNED_AT = "2025-01-18T02:00:00+01:00"
DAY_BEFORE = "2025-01-31T02:00:00+01:00"
DUE_AT = "2025-02-01T02:00:00+01:00"
EVERYTHING = {"max_share_of_accounts": 1.0}


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
def nights(shop: Shop) -> Nights:
    """The shop's nights; points of m1 expire after 30 days."""
    shop.program(points_expiration_days=30)
    return Nights(shop)


def merchant(shop: Shop, merchant_id: str) -> None:
    """Add a merchant whose points expire after 30 days."""
    shop.merchant(merchant_id, points_expiration_days=30)


def expire(instance: dg.DagsterInstance, as_of: str | None, *merchants: str, **options) -> dg.ExecuteInProcessResult:
    """Run a night, as the schedule does: for the merchants, in one run."""
    chosen = merchants or ("m1",)
    instance.add_dynamic_partitions("merchant", list(chosen))
    selection = options.pop("asset_selection", None)
    config = {"dry_run": False, "as_of": as_of, **options}
    return defs.resolve_job_def(JOB).execute_in_process(
        instance=instance,
        raise_on_error=False,
        tags={RANGE_START: chosen[0], RANGE_END: chosen[-1]},
        run_config={"ops": {"expiry": {"config": {k: v for k, v in config.items() if v is not None}}}},
        asset_selection=selection,
    )


def warned(instance: dg.DagsterInstance, nights: Nights, *merchants: str) -> None:
    """Run the night in which customers are told, and deliver the mails."""
    assert expire(instance, WARNED_AT, *merchants).success
    nights.deliver()


def newest(instance: dg.DagsterInstance, key: dg.AssetKey, merchant_id: str = "m1") -> dict:
    """Return the metadata of a merchant's newest materialization of an asset."""
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=[merchant_id]), limit=1
    ).records
    assert records, f"{merchant_id} has no materialization of {key}"
    assert records[0].asset_materialization
    return {name: value.value for name, value in records[0].asset_materialization.metadata.items()}


def observed(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict:
    """Return the metadata of the newest observation of an asset."""
    observation = instance.fetch_observations(key, limit=1).records[0].asset_observation
    assert observation
    return {name: value.value for name, value in observation.metadata.items()}


def count(instance: dg.DagsterInstance, key: dg.AssetKey, run_id: str) -> list[str]:
    """Return the merchants of which a run has materialized an asset."""
    records = instance.fetch_materializations(key, limit=1000).records
    return sorted(record.partition_key or "" for record in records if record.run_id == run_id)


def logged(result: dg.ExecuteInProcessResult, instance: dg.DagsterInstance) -> str:
    """Return all that a run has logged."""
    return "\n".join(f"{entry.message} {entry.dagster_event}" for entry in instance.all_logs(result.run_id))


def break_merchant(shop: Shop, merchant_id: str, table: str, condition: str, problem: str) -> None:
    """Have PostgreSQL refuse rows of a merchant."""
    shop.run(
        "CREATE FUNCTION break_it() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF NEW.merchant_id = '{merchant_id}' AND {condition} THEN RAISE {problem}; END IF; RETURN NEW; "
        "END $$"
    )
    shop.run(f"CREATE TRIGGER break_it BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION break_it()")


def test_a_night_warns_first_and_takes_points_when_their_date_has_come(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    nights.account("ann", active_at=ACTIVE_AT)
    first = expire(instance, WARNED_AT)
    assert first.success
    assert newest(instance, EXPIRY_WARNINGS) == {
        "accounts warned": 1,
        "points": 100,
        "dates moved": 0,
        "accounts rescheduled": 0,
    }
    assert shop.balance() == 100
    nights.deliver()
    assert expire(instance, DAY_BEFORE).success
    assert newest(instance, EXPIRED_POINTS)["accounts expired"] == 0
    last = expire(instance, DUE_AT, **EVERYTHING)
    assert last.success
    assert shop.balance() == 0
    assert newest(instance, EXPIRY_WARNINGS)["accounts warned"] == 0
    assert newest(instance, EXPIRED_POINTS) == {
        "accounts expired": 1,
        "points expired": 100,
        "accounts still locked": 0,
        "accounts refused": 0,
        "accounts against the forecast": 0,
        "points against the forecast": 0,
        "run": last.run_id,
    }
    assert shop.rows("SELECT actor, run_id FROM loyalty.ledger_entries WHERE kind = 'expired'") == [
        ("expiry", last.run_id)
    ]


def test_the_plan_shows_what_it_was_compared_with(nights: Nights, instance: dg.DagsterInstance) -> None:
    nights.account("ann", active_at=ACTIVE_AT)
    warned(instance, nights)
    nights.account("bea", active_at=ACTIVE_AT, points=7)
    assert expire(instance, DUE_AT).success
    assert newest(instance, EXPIRY_PLAN) == {
        "accounts due": 1,
        "points due": 100,
        "accounts waiting": 0,
        "stopped": False,
        "nights compared": 1,
        "usual": 0,
        "limit": 20,
    }


def test_all_merchants_are_one_run_and_those_with_nothing_to_do_are_done_too(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    for name in ("m2", "m3"):
        merchant(shop, name)
    shop.run("INSERT INTO sample_shop.merchants (id, name, timezone, currency) VALUES ('new', 'new', 'UTC', 'EUR')")
    for name in ("m1", "m2"):
        nights.account("ann", active_at=ACTIVE_AT, merchant=name)
    warned(instance, nights, "m1", "m2", "m3", "new")
    result = expire(instance, DUE_AT, "m1", "m2", "m3", "new")
    assert result.success
    for key in (EXPIRY_WARNINGS, EXPIRY_PLAN, EXPIRED_POINTS):
        assert count(instance, key, result.run_id) == ["m1", "m2", "m3"]
    assert newest(instance, EXPIRED_POINTS, "m3")["accounts expired"] == 0
    assert "1 merchants have no programme: new" in logged(result, instance)
    assert shop.rows(
        "SELECT merchant_id, finished_at IS NOT NULL FROM loyalty.expiry_runs WHERE run_id = :id ORDER BY 1",
        id=result.run_id,
    ) == [("m1", True), ("m2", True), ("m3", True)]
    assert shop.problems() == []


def test_who_came_back_since_is_the_difference_to_the_forecast(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    for name in ("ann", "bea"):
        nights.account(name, active_at=ACTIVE_AT)
    warned(instance, nights)
    assert expire(instance, DAY_BEFORE).success
    nights.account("bea", active_at="2025-01-31T12:00:00+01:00", points=10)
    assert expire(instance, DUE_AT, **EVERYTHING).success
    metadata = newest(instance, EXPIRED_POINTS)
    assert (metadata["accounts against the forecast"], metadata["points against the forecast"]) == (-1, -100)


def test_where_all_came_back_the_forecast_is_compared_too(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    nights.account("ann", active_at=ACTIVE_AT)
    warned(instance, nights)
    assert expire(instance, DAY_BEFORE).success
    nights.account("ann", active_at="2025-01-31T12:00:00+01:00", points=10)
    assert expire(instance, DUE_AT).success
    metadata = newest(instance, EXPIRED_POINTS)
    assert (metadata["accounts expired"], metadata["accounts against the forecast"]) == (0, -1)


def test_a_failed_merchant_fails_the_run_after_all_others_are_done(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    for name in ("m2", "m3"):
        merchant(shop, name)
    for name in ("m1", "m2", "m3"):
        nights.account("ann", active_at=ACTIVE_AT, merchant=name)
    warned(instance, nights, "m1", "m2", "m3")
    break_merchant(shop, "m2", "loyalty.ledger_entries", "true", "undefined_column")
    result = expire(instance, DUE_AT, "m1", "m2", "m3")
    assert not result.success
    failure = result.failure_data_for_node("expiry")
    assert failure and "1 merchant failed, all others are done: m2" in failure.error_display_string
    assert count(instance, EXPIRED_POINTS, result.run_id) == ["m1", "m3"]
    assert [shop.balance(merchant=name) for name in ("m1", "m2", "m3")] == [0, 100, 0]


def test_an_account_that_postgresql_refuses_fails_the_run_and_keeps_no_other(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    for name in ("ann@example.com", "bea", "cid"):
        nights.account(name, active_at=ACTIVE_AT)
    warned(instance, nights)
    bad = shop.account("ann@example.com").account_id
    break_merchant(shop, "m1", "loyalty.ledger_entries", f"NEW.account_id = {bad}", "check_violation")
    result = expire(instance, DUE_AT)
    assert not result.success
    failure = result.failure_data_for_node("expiry")
    assert failure
    assert "m1: PostgreSQL refused to change 1 of its accounts, all others are done" in failure.error_display_string
    assert (shop.balance("ann@example.com"), shop.balance("bea"), shop.balance("cid")) == (100, 0, 0)
    assert newest(instance, EXPIRED_POINTS)["accounts refused"] == 1
    assert "ann@example.com" not in logged(result, instance)


def test_a_stopped_merchant_keeps_its_points_and_all_others_expire(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    merchant(shop, "m2")
    for name in range(25):
        nights.account(f"c{name}", active_at=ACTIVE_AT)
    nights.account("ann", active_at=ACTIVE_AT, merchant="m2")
    warned(instance, nights, "m1", "m2")
    result = expire(instance, DUE_AT, "m1", "m2")
    assert result.success, "the check is red, the run did what it should"
    assert count(instance, EXPIRED_POINTS, result.run_id) == ["m2"]
    assert count(instance, EXPIRY_PLAN, result.run_id) == ["m1", "m2"]
    plan = newest(instance, EXPIRY_PLAN)
    assert (plan["stopped"], plan["accounts due"], plan["limit"]) == (True, 25, 20)
    assert "loyalty expire m1 --accept 25" in plan["reason"]
    assert "Merchant m1 is stopped, nothing of it expires: 25 accounts" in logged(result, instance)
    assert (shop.balance("c0"), shop.balance(merchant="m2")) == (100, 0)
    accepted = expire(instance, DUE_AT, "m1", accept_accounts=25)
    assert accepted.success
    assert newest(instance, EXPIRED_POINTS)["accounts expired"] == 25


def test_the_share_of_the_accounts_that_is_no_surprise_can_be_set(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    for name in range(25):
        nights.account(f"c{name}", active_at=ACTIVE_AT)
    warned(instance, nights)
    assert expire(instance, DUE_AT, max_share_of_accounts=0.96).success
    assert (newest(instance, EXPIRY_PLAN)["stopped"], newest(instance, EXPIRY_PLAN)["limit"]) == (True, 24)
    assert expire(instance, DUE_AT, max_share_of_accounts=1.0).success
    assert newest(instance, EXPIRED_POINTS)["accounts expired"] == 25


def test_how_many_times_the_usual_are_no_surprise_can_be_set(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    for name in range(25):
        nights.account(f"c{name}", active_at=ACTIVE_AT)
    warned(instance, nights)
    shop.run(
        "INSERT INTO loyalty.expiry_runs (merchant_id, run_id, as_of, actor, finished_at, accounts_expired) SELECT "
        "'m1', 'night ' || n, CAST(:due AS timestamptz) - n * interval '1 day', 'test', now(), 10 "
        "FROM generate_series(1, 7) AS n",
        due=DUE_AT,
    )
    assert expire(instance, DUE_AT, max_times_usual=2.4).success
    plan = newest(instance, EXPIRY_PLAN)
    assert (plan["stopped"], plan["usual"], plan["limit"], plan["nights compared"]) == (True, 10, 24, 8)
    assert expire(instance, DUE_AT, max_times_usual=2.5).success
    assert (newest(instance, EXPIRY_PLAN)["stopped"], newest(instance, EXPIRY_PLAN)["limit"]) == (False, 25)


def test_a_chunk_is_a_transaction_of_the_size_that_was_set(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    for name in range(5):
        nights.account(f"c{name}", active_at=ACTIVE_AT)
    warned(instance, nights)
    assert expire(instance, DUE_AT, chunk_size=2).success
    assert shop.value("SELECT count(DISTINCT recorded_xid) FROM loyalty.ledger_entries WHERE kind = 'expired'") == 3


def test_accepted_accounts_are_those_of_one_merchant(nights: Nights, shop: Shop, instance: dg.DagsterInstance) -> None:
    merchant(shop, "m2")
    result = expire(instance, DUE_AT, "m1", "m2", accept_accounts=25)
    assert not result.success
    failure = result.failure_data_for_node("expiry")
    assert failure and "accept_accounts is 25, and 2 merchants are chosen: expected one" in failure.error_display_string


def test_running_a_night_again_warns_and_takes_nothing_twice(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    for name in ("ann", "bea"):
        nights.account(name, active_at=ACTIVE_AT)
    warned(instance, nights)
    for _ in range(2):
        assert expire(instance, DUE_AT, **EVERYTHING).success
    assert newest(instance, EXPIRED_POINTS)["accounts expired"] == 0
    assert [len(nights.mails(f"loyalty_points_{what}")) for what in ("expiring", "expired")] == [2, 2]
    assert shop.problems() == []


def expiry_job() -> dg.JobDefinition:
    """The job, as another process finds it."""
    return defs.resolve_job_def(JOB)


@pytest.mark.parametrize("is_same_night", [True, False])
def test_a_re_execution_in_the_same_night_goes_on_with_the_figures_of_its_first_run(
    is_same_night: bool, nights: Nights, shop: Shop, database_url: str, in_files: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("LOYALTY_DATABASE_URL", database_url)
    merchant(shop, "m2")
    for name in ("m1", "m2"):
        nights.account("ann", active_at=ACTIVE_AT, merchant=name)
    warned(in_files, nights, "m1", "m2")
    break_merchant(shop, "m2", "loyalty.ledger_entries", "true", "undefined_column")
    first = expire(in_files, DUE_AT, "m1", "m2")
    assert not first.success
    shop.run("DROP TRIGGER break_it ON loyalty.ledger_entries")
    if not is_same_night:
        monkeypatch.setattr("loyalty_pipelines.assets.expiry.SAME_NIGHT", timedelta(0))
        shop.run("UPDATE loyalty.expiry_runs SET started_at = started_at - interval '21 hours'")
    with dg.execute_job(
        dg.reconstructable(expiry_job),
        instance=in_files,
        run_config=first.dagster_run.run_config,
        tags={name: first.dagster_run.tags[name] for name in (RANGE_START, RANGE_END)},
        reexecution_options=dg.ReexecutionOptions(parent_run_id=first.run_id),
    ) as again:
        assert again.success
        run_id = first.run_id if is_same_night else again.run_id
    assert newest(in_files, EXPIRED_POINTS, "m2")["run"] == run_id
    assert [newest(in_files, EXPIRED_POINTS, name)["accounts expired"] for name in ("m1", "m2")] == [
        int(is_same_night),
        1,
    ]
    assert [shop.balance(merchant=name) for name in ("m1", "m2")] == [0, 0]


def test_a_part_can_be_chosen_warnings_alone_take_nothing(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    nights.account("ann", active_at=ACTIVE_AT)
    only_warnings = expire(instance, WARNED_AT, asset_selection=[EXPIRY_WARNINGS])
    assert only_warnings.success
    assert count(instance, EXPIRY_WARNINGS, only_warnings.run_id) == ["m1"]
    assert count(instance, EXPIRY_PLAN, only_warnings.run_id) == []
    nights.deliver()
    planned = expire(instance, DUE_AT, asset_selection=[EXPIRY_PLAN])
    assert planned.success
    assert newest(instance, EXPIRY_PLAN)["accounts due"] == 1
    assert count(instance, EXPIRED_POINTS, planned.run_id) == []
    assert shop.balance() == 100
    taken = expire(instance, DUE_AT, asset_selection=[EXPIRED_POINTS])
    assert taken.success
    assert count(instance, EXPIRY_WARNINGS, taken.run_id) == []
    assert shop.balance() == 0


def test_a_dry_run_is_the_default_counts_and_writes_nothing(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    nights.account("ann", active_at=ACTIVE_AT)
    warned(instance, nights)
    nights.account("bea", active_at="2025-01-10T12:00:00+01:00", points=7)
    before = shop.rows("SELECT * FROM loyalty.accounts ORDER BY account_id")
    runs = shop.value("SELECT count(*) FROM loyalty.expiry_runs")
    instance.add_dynamic_partitions("merchant", ["m1"])
    result = defs.resolve_job_def(JOB).execute_in_process(
        instance=instance,
        partition_key="m1",
        run_config={"ops": {"expiry": {"config": {"as_of": DUE_AT}}}},
    )
    assert result.success
    for key in (EXPIRY_WARNINGS, EXPIRY_PLAN, EXPIRED_POINTS):
        assert count(instance, key, result.run_id) == []
    assert observed(instance, EXPIRY_WARNINGS)["accounts warned"] == 1
    seen = observed(instance, EXPIRED_POINTS)
    assert (seen["points expired"], "run" in seen) == (100, False)
    assert shop.rows("SELECT * FROM loyalty.accounts ORDER BY account_id") == before
    assert shop.value("SELECT count(*) FROM loyalty.expiry_runs") == runs
    assert len(nights.mails()) == 1


def test_without_warning_takes_what_nobody_was_told_of(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    nights.account("ann", active_at="2024-01-01T12:00:00+01:00")
    assert expire(instance, None).success
    assert shop.balance() == 100, "its date moves, because nobody was warned"
    shop.run("UPDATE loyalty.accounts SET expires_at = now() - interval '1 hour', warned_for = NULL")
    assert expire(instance, None, require_warning=False, **EVERYTHING).success
    assert shop.balance() == 0


@pytest.mark.parametrize(
    ("as_of", "text"),
    [("2025-02-01", "expected an instant with its zone"), ("2999-01-01T00:00:00+00:00", "A dry run may look ahead")],
)
def test_an_instant_without_a_zone_or_ahead_is_refused_before_anything_is_done(
    as_of: str, text: str, nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    nights.account("ann", active_at=ACTIVE_AT)
    result = expire(instance, as_of)
    assert not result.success
    failure = result.failure_data_for_node("expiry")
    assert failure and text in failure.error_display_string
    assert shop.value("SELECT count(*) FROM loyalty.expiry_runs") == 0


def test_behind_a_withdrawn_mapping_nothing_expires(nights: Nights, shop: Shop, instance: dg.DagsterInstance) -> None:
    nights.account("ann", active_at=ACTIVE_AT)
    warned(instance, nights)
    with shop.engine.begin() as conn:
        sources.withdraw(conn)
    assert not expire(instance, DUE_AT).success
    assert shop.balance() == 100


def test_an_unknown_time_zone_of_a_merchant_is_a_warning(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    nights.account("ann", active_at=ACTIVE_AT)
    shop.run("UPDATE sample_shop.merchants SET timezone = 'Mars/Olympus'")
    result = expire(instance, WARNED_AT)
    assert result.success
    assert "Merchant m1: its time zone is unknown, so expiry dates are computed in UTC." in logged(result, instance)


def test_a_locked_account_is_said_and_left_to_the_next_run(
    nights: Nights, shop: Shop, instance: dg.DagsterInstance
) -> None:
    for name in ("ann", "bea"):
        nights.account(name, active_at=ACTIVE_AT)
    warned(instance, nights)
    with shop.engine.connect() as conn, conn.begin():
        conn.exec_driver_sql("SELECT 1 FROM loyalty.accounts WHERE customer_id = 'ann' FOR UPDATE")
        result = expire(instance, DUE_AT)
    assert result.success
    metadata = newest(instance, EXPIRED_POINTS)
    assert (metadata["accounts expired"], metadata["accounts still locked"]) == (1, 1)
    assert "1 accounts were locked twice" in logged(result, instance)
    assert expire(instance, DUE_AT).success
    assert (shop.balance("ann"), shop.balance("bea")) == (0, 0)


def tick(instance: dg.DagsterInstance):
    """Evaluate one tick of the schedule."""
    with dg.build_schedule_context(instance) as context:
        return defs.resolve_schedule_def("expiry_schedule").evaluate_tick(context)


def test_the_schedule_covers_all_merchants_in_one_real_run(in_files: dg.DagsterInstance) -> None:
    assert tick(in_files).skip_message == "There are no merchants yet."
    in_files.add_dynamic_partitions("merchant", ["m1", "m2", "m3"])
    (request,) = tick(in_files).run_requests or []
    assert (request.tags[RANGE_START], request.tags[RANGE_END]) == ("m1", "m3")
    assert request.run_config == {"ops": {"expiry": {"config": {"dry_run": False}}}}
    schedule = defs.resolve_schedule_def("expiry_schedule")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 2 * * *", "UTC")


def test_a_night_does_not_start_beside_one_that_runs_but_beside_a_run_by_hand(in_files: dg.DagsterInstance) -> None:
    in_files.add_dynamic_partitions("merchant", ["m1"])
    job, started = defs.resolve_job_def(JOB), dg.DagsterRunStatus.STARTED
    in_files.create_run_for_job(job, status=started)
    assert tick(in_files).run_requests
    night = in_files.create_run_for_job(job, status=started, tags={SCHEDULE_NAME: "expiry_schedule"})
    assert tick(in_files).skip_message == f"Expiry run {night.run_id} is not finished yet."
