"""Which failed runs are told, and what makes good for them: on a real, ephemeral Dagster instance."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine, text

from loyalty_pipelines.assets.awards import AWARDED_POINTS
from loyalty_pipelines.assets.expiry import EXPIRED_POINTS, EXPIRY_PLAN, EXPIRY_WARNINGS
from loyalty_pipelines.assets.integrity import BALANCE_INTEGRITY
from loyalty_pipelines.db.alerts_run import SENSOR, observe
from loyalty_pipelines.definitions import defs
from loyalty_pipelines.domain.alerts import Sight
from loyalty_pipelines.sensors import alert_runs
from loyalty_pipelines.sensors.alert_runs import asset_jobs, follow_jobs, follow_runs_by_hand
from tests.alerting import Alerting
from tests.ended_runs import ALL_NIGHT, FAILURE, FOR_EARNEST, ONE_MERCHANT, SUCCESS, by_hand, check_by_hand, run_of

MADE = asset_jobs(defs.get_repository_def())
RANGE = {name: value for name, value in ALL_NIGHT.items() if "range" in name}
AWARDS, PROOF, EXPIRY = (
    f"by_hand/{key.to_user_string()}" for key in (AWARDED_POINTS, BALANCE_INTEGRITY, EXPIRED_POINTS)
)
CHECK = dg.AssetCheckKey(AWARDED_POINTS, "every_paid_order_has_its_points")


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance whose runs do nothing: no database is asked."""
    monkeypatch.setenv("LOYALTY_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    with dg.DagsterInstance.ephemeral() as made:
        made.add_dynamic_partitions("merchant", ["m1", "m2", "m3"])
        yield made


def told(instance: dg.DagsterInstance, *jobs: str) -> set[str]:
    """Return the failures that are told: of these jobs, else of runs by hand."""
    now = datetime.now(UTC)
    found = follow_jobs(instance, jobs, as_of=now, made=MADE) if jobs else seen_by_hand(instance)
    return {one.name for one in found.symptoms}


def seen_by_hand(instance: dg.DagsterInstance) -> Sight:
    return follow_runs_by_hand(instance, MADE, as_of=datetime.now(UTC))


# --- whose logs are read ---


def test_many_failed_attempts_at_one_asset_hide_no_failure_of_another(instance: dg.DagsterInstance) -> None:
    by_hand(instance, FAILURE, BALANCE_INTEGRITY, tags=ONE_MERCHANT)
    for _ in range(25):
        by_hand(instance, FAILURE, AWARDED_POINTS, tags=ONE_MERCHANT)
    found = seen_by_hand(instance)
    assert ({one.name for one in found.symptoms}, found.undecided) == ({AWARDS, PROOF}, set())


def test_a_failed_run_of_nothing_but_checks_takes_no_place_of_another(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_runs, "READ", 1)
    by_hand(instance, FAILURE, AWARDED_POINTS, tags=ONE_MERCHANT)
    check_by_hand(instance, FAILURE, CHECK)
    assert told(instance) == {AWARDS}


def test_what_is_not_read_in_this_tick_is_undecided_and_read_in_the_next(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_runs, "READ", 1)
    for asset in (EXPIRED_POINTS, BALANCE_INTEGRITY, AWARDED_POINTS):
        by_hand(instance, FAILURE, asset, tags=ONE_MERCHANT)
    found = seen_by_hand(instance)
    assert ({one.name for one in found.symptoms}, found.undecided) == ({AWARDS}, {PROOF, EXPIRY})
    seen_by_hand(instance)
    found = seen_by_hand(instance)
    assert ({one.name for one in found.symptoms}, found.undecided) == ({AWARDS, PROOF, EXPIRY}, set())


def test_what_a_failed_run_logged_is_read_once_and_only_jobs_that_make_its_assets_are_asked(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, asked = [], set()
    all_logs, get_run_records = instance.all_logs, instance.get_run_records

    def reading(run_id: str, *args: Any, **options: Any) -> Any:
        read.append(run_id)
        return all_logs(run_id, *args, **options)

    def asking(filters: dg.RunsFilter, *args: Any, **options: Any) -> Any:
        asked.add(filters.job_name)
        return get_run_records(filters, *args, **options)

    both = by_hand(instance, FAILURE, EXPIRY_PLAN, EXPIRED_POINTS, tags=ONE_MERCHANT)
    monkeypatch.setattr(instance, "all_logs", reading)
    monkeypatch.setattr(instance, "get_run_records", asking)
    for _ in range(3):
        assert len(told(instance)) == 2
    assert read == [both.run_id]
    assert asked == {"__ASSET_JOB", "expire_points_job"}
    night = run_of(instance, "expire_points_job", FAILURE, tags=ALL_NIGHT)
    for _ in range(3):
        assert told(instance, "expire_points_job")
    assert read == [both.run_id, night.run_id]


def test_a_failure_that_is_over_because_nothing_was_left_to_do_does_not_come_back_with_new_work(
    instance: dg.DagsterInstance, engine: Engine
) -> None:
    job, alerting = "drain_reconciliation_queue_job", Alerting(engine)

    def tick(*idle: str) -> int:
        sight = follow_jobs(instance, [job], as_of=datetime.now(UTC), idle=idle)
        return observe(engine, SENSOR, sight, alerting.table)

    run_of(instance, job, FAILURE)
    assert tick() == 1
    assert tick(job) == 1
    # Only what is in the database gets older, so the end of the problem is put back to now.
    alerting.wait(minutes=5)
    assert tick(job) == 0
    with engine.begin() as conn:
        conn.execute(text("UPDATE loyalty.alert_problems SET ended_at = now()"))
    assert tick() == 0, "new work, and no run yet"
    with engine.begin() as conn:
        conn.execute(text("UPDATE loyalty.alert_problems SET ended_at = now() - interval '3 days'"))
    (found,) = follow_jobs(instance, [job], as_of=datetime.now(UTC)).symptoms
    old = replace(found, since=found.since - timedelta(days=4))
    assert observe(engine, SENSOR, Sight(symptoms=(old,)), alerting.table) == 0, "it is remembered for a week"
    run_of(instance, job, FAILURE)
    assert tick() == 1


# --- what the later run was to make ---


def test_a_run_of_nothing_but_checks_has_made_no_asset(instance: dg.DagsterInstance) -> None:
    by_hand(instance, FAILURE, AWARDED_POINTS, tags=ONE_MERCHANT)
    check_by_hand(instance, SUCCESS, CHECK)
    assert told(instance) == {AWARDS}
    by_hand(instance, SUCCESS, BALANCE_INTEGRITY, tags=ONE_MERCHANT)
    assert told(instance) == {AWARDS}, "another asset"
    by_hand(instance, SUCCESS, BALANCE_INTEGRITY, AWARDED_POINTS, tags=ONE_MERCHANT)
    assert told(instance) == set()


def test_a_failed_night_is_ended_only_by_a_run_of_all_its_assets(instance: dg.DagsterInstance) -> None:
    job, options = "expire_points_job", {"tags": RANGE, "run_config": FOR_EARNEST}
    run_of(instance, job, FAILURE, tags=ALL_NIGHT, run_config=FOR_EARNEST)
    run_of(instance, job, SUCCESS, asset_selection={EXPIRY_PLAN}, **options)
    assert told(instance, job) == {job}
    # This is how the UI starts all of a job.
    run_of(instance, job, SUCCESS, asset_selection={EXPIRY_PLAN, EXPIRY_WARNINGS, EXPIRED_POINTS}, **options)
    assert told(instance, job) == set()


def test_a_failed_run_of_some_assets_is_ended_by_one_of_them_or_of_all(instance: dg.DagsterInstance) -> None:
    job, options = "expire_points_job", {"tags": RANGE, "run_config": FOR_EARNEST}
    for later in ({"asset_selection": {EXPIRY_PLAN, EXPIRED_POINTS}}, {}):
        run_of(instance, job, FAILURE, asset_selection={EXPIRED_POINTS}, **options)
        assert told(instance, job) == {job}
        run_of(instance, job, SUCCESS, **later, **options)
        assert told(instance, job) == set()


def test_a_re_execution_of_the_assets_that_were_not_made_ends_a_failed_night(instance: dg.DagsterInstance) -> None:
    job = "expire_points_job"
    night = run_of(instance, job, FAILURE, tags=ALL_NIGHT, run_config=FOR_EARNEST)
    run_of(
        instance,
        job,
        SUCCESS,
        tags={**RANGE, "dagster/is_asset_resume_retry": "true"},
        run_config=FOR_EARNEST,
        asset_selection={EXPIRED_POINTS},
        root_run_id=night.run_id,
        parent_run_id=night.run_id,
    )
    assert told(instance, job) == set()


def test_a_job_that_made_other_assets_of_its_own_ends_no_failure_by_hand(instance: dg.DagsterInstance) -> None:
    options = {"tags": ONE_MERCHANT, "run_config": FOR_EARNEST}
    by_hand(instance, FAILURE, EXPIRED_POINTS, **options)
    run_of(instance, "expire_points_job", SUCCESS, asset_selection={EXPIRY_PLAN}, **options)
    assert told(instance) == {EXPIRY}
    run_of(instance, "expire_points_job", SUCCESS, **options)
    assert told(instance) == set()
