"""The alerts' sensor and check on a real, ephemeral Dagster instance, a real database and a real HTTP server."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy.exc import OperationalError

from loyalty_pipelines.assets.alerts import ALERTS
from loyalty_pipelines.assets.awards import AWARDED_POINTS
from loyalty_pipelines.assets.expiry import EXPIRED_POINTS
from loyalty_pipelines.assets.integrity import BALANCE_INTEGRITY
from loyalty_pipelines.db.alerts_run import idle_jobs
from loyalty_pipelines.definitions import defs
from loyalty_pipelines.domain.alert_settings import AlertSettingsError
from loyalty_pipelines.domain.alerts import AlertNotSentError, Problem, State
from loyalty_pipelines.resources.alerter import Alerter
from loyalty_pipelines.resources.database import LedgerDatabase
from loyalty_pipelines.sensors.alert_checks import follow_checks
from loyalty_pipelines.sensors.alert_runs import follow_jobs, follow_runs_by_hand
from loyalty_pipelines.sensors.alerts import follow_freshness, windows
from tests.alerting import Alerting
from tests.ended_runs import ALL_NIGHT, FAILURE, FOR_EARNEST, ONE_MERCHANT, SUCCESS, begin, by_hand, end, run_of
from tests.integrity import proved
from tests.mail_server import closed_port
from tests.queued import Queue
from tests.shop import Shop
from tests.webhook import TOKEN, Webhook, webhook

NAME = "no_order_is_awarded_twice"
PASSED, RED, YELLOW = (
    {"passed": True},
    {"passed": False, "severity": dg.AssetCheckSeverity.ERROR},
    {"passed": False, "severity": dg.AssetCheckSeverity.WARN},
)


@pytest.fixture
def instance(shop: Shop, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An ephemeral instance whose runs use the test's database."""
    monkeypatch.setenv("LOYALTY_DATABASE_URL", database_url)
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    """A server that the environment names."""
    with webhook() as running:
        monkeypatch.setenv("LOYALTY_ALERT_WEBHOOK_URL", running.url)
        yield running


@pytest.fixture
def alerting(shop: Shop) -> Alerting:
    return Alerting(shop.engine)


def run_job(instance: dg.DagsterInstance, name: str, **options) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def(name).execute_in_process(instance=instance, raise_on_error=False, **options)


def tick(instance: dg.DagsterInstance, url: str) -> str:
    """Evaluate one tick; return what it says."""
    resources = {"ledger": LedgerDatabase(url=url), "alerter": Alerter()}
    with dg.build_sensor_context(instance, definitions=defs, resources=resources) as context:
        return defs.resolve_sensor_def("alerts_sensor").evaluate_tick(context).skip_message or ""


def report(instance: dg.DagsterInstance, result: dict, *, name: str = NAME, **more) -> None:
    """Let a check have a result."""
    values = {"description": "3 orders have other points.", **result, **more}
    instance.report_runless_asset_event(dg.AssetCheckEvaluation(asset_key=BALANCE_INTEGRITY, check_name=name, **values))


def test_a_red_check_is_told_with_its_numbers_its_merchants_and_what_to_do(
    instance: dg.DagsterInstance, database_url: str, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOYALTY_DAGSTER_URL", "https://dagster.example.com/")
    monkeypatch.setenv("LOYALTY_DOCS_URL", "https://git.example.com/main/")
    assert tick(instance, database_url) == "Nothing is wrong. Messages sent: none."
    rows = [dg.TableRecord({"merchant_id": name, "order_id": "7"}) for name in ("m2", "m1", "m2")]
    report(instance, RED, metadata={"orders": 3, "worst": dg.TableMetadataValue(rows, None), "is_full": True})
    assert tick(instance, database_url) == "Open problems: 1 ('loyalty alerts list'). Messages sent: 1 by webhook."
    assert "Messages sent: none" in tick(instance, database_url)
    (message,) = hook.taken
    (alert,) = message["alerts"]
    page = f"https://dagster.example.com/assets/loyalty/balance_integrity?view=checks&checkDetail={NAME}"
    assert alert == {
        "key": alert["key"],
        "event": "started",
        "severity": "P0",
        "name": NAME,
        "source": "check",
        "title": f"{NAME} is red",
        "detail": "3 orders have other points.",
        "merchants": ["m2", "m1"],
        "merchants_total": 2,
        "numbers": {"orders": 3},
        "started_at": alert["started_at"],
        "ended_at": None,
        "reminders": 0,
        "runbook": "https://git.example.com/main/docs/runbooks/integrity.md#no_order_is_awarded_twice",
        "dagster": page,
    }
    for words in (f"P0 {NAME} is red", "Since ", "3 orders have", "Merchants: m2, m1", alert["runbook"], page):
        assert words in message["text"]


def test_a_check_that_turns_green_ends_its_problem_and_one_that_turns_red_again_makes_it_worse(
    instance: dg.DagsterInstance, database_url: str, hook: Webhook, alerting: Alerting
) -> None:
    report(instance, YELLOW)
    tick(instance, database_url)
    report(instance, RED)
    tick(instance, database_url)
    report(instance, PASSED)
    tick(instance, database_url)
    alerting.wait(minutes=5)
    assert "Nothing is wrong." in tick(instance, database_url)
    assert hook.events == [("started", NAME), ("worse", NAME), ("ended", NAME)]


def test_results_of_long_ago_are_a_problem_though_they_are_green(
    instance: dg.DagsterInstance, database_url: str, hook: Webhook
) -> None:
    report(instance, PASSED)
    keys = [dg.AssetCheckKey(BALANCE_INTEGRITY, NAME)]
    now = datetime.now(UTC)
    assert follow_checks(instance, keys, as_of=now + timedelta(hours=25)).symptoms == ()
    (old,) = follow_checks(instance, keys, as_of=now + timedelta(hours=27)).symptoms
    assert (old.name, old.state, NAME in old.detail) == ("old_checks", State.RED, True)


def test_more_findings_of_a_red_check_are_told_as_worse(
    instance: dg.DagsterInstance, database_url: str, hook: Webhook
) -> None:
    for findings in (1, 1, 3, 2, 3):
        report(instance, RED, metadata={"findings": findings})
        tick(instance, database_url)
    assert hook.events == [("started", NAME), ("worse", NAME)]


def test_a_run_that_failed_because_its_checks_are_red_is_no_second_alert(
    shop: Shop, instance: dg.DagsterInstance, database_url: str, hook: Webhook
) -> None:
    shop.order("1", "10.00")
    shop.award()
    shop.run("UPDATE loyalty.accounts SET balance = 9")
    proved(shop)
    assert not run_job(instance, "integrity_checks_job").success
    tick(instance, database_url)
    (message,) = hook.taken
    assert {(one["name"], one["severity"]) for one in message["alerts"]} == {
        ("balances_equal_the_sum_of_entries", "P0")
    }
    assert {one["source"] for one in message["alerts"]} == {"check"}


def test_checks_that_could_not_run_are_problems_and_their_run_is_none(
    shop: Shop, instance: dg.DagsterInstance, database_url: str, hook: Webhook, alerting: Alerting
) -> None:
    assert run_job(instance, "notification_checks_job").success
    shop.run("ALTER TABLE loyalty.notifications RENAME TO gone")
    assert not run_job(instance, "notification_checks_job").success
    tick(instance, database_url)
    (message,) = hook.taken
    assert {(one["name"], one["severity"]) for one in message["alerts"]} == {
        ("no_mail_waits_long", "P1"),
        ("few_mails_fail", "P1"),
    }
    assert message["alerts"][0]["title"] == "few_mails_fail could not run"
    job = defs.resolve_job_def("notification_checks_job")
    running = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    tick(instance, database_url)
    assert [one.gone_since for one in alerting.problems()] == [None, None], "they are being looked at"
    instance.report_run_canceled(running)
    shop.run("ALTER TABLE loyalty.gone RENAME TO notifications")
    assert run_job(instance, "notification_checks_job").success
    tick(instance, database_url)
    assert all(one.gone_since for one in alerting.problems())


def test_a_failed_run_is_told_until_a_newer_one_succeeds(
    shop: Shop, instance: dg.DagsterInstance, database_url: str, hook: Webhook, alerting: Alerting
) -> None:
    Queue(shop).report("o", 25, 0)
    shop.run("ALTER TABLE loyalty.reconciliation_queue RENAME COLUMN operation TO gone")
    failed = run_job(instance, "drain_reconciliation_queue_job")
    assert not failed.success
    shop.run("ALTER TABLE loyalty.reconciliation_queue RENAME COLUMN gone TO operation")
    tick(instance, database_url)
    (alert,) = hook.taken[0]["alerts"]
    assert (alert["name"], alert["severity"]) == ("drain_reconciliation_queue_job", "P1")
    assert "retrying would not help" in alert["detail"]
    assert f"/runs/{failed.run_id}" in alerting.problem().place
    cancelled = instance.create_run_for_job(
        defs.resolve_job_def("drain_reconciliation_queue_job"), status=dg.DagsterRunStatus.CANCELED
    )
    tick(instance, database_url)
    assert (alerting.problem().gone_since, cancelled.is_finished) == (None, True)
    assert run_job(instance, "drain_reconciliation_queue_job").success
    tick(instance, database_url)
    alerting.wait(minutes=5)
    tick(instance, database_url)
    assert hook.events == [("started", alert["name"]), ("ended", alert["name"])]


def test_an_error_that_is_not_worded_by_us_is_told_by_its_kind_alone(instance: dg.DagsterInstance) -> None:
    @dg.op
    def broken() -> None:
        raise ValueError("ann@example.com")

    @dg.job
    def broken_job() -> None:
        broken()

    assert not broken_job.execute_in_process(instance=instance, raise_on_error=False).success
    (found,) = follow_jobs(instance, ["broken_job"], as_of=datetime.now(UTC)).symptoms
    assert (found.title, found.detail) == ("broken_job failed", "ValueError")


def test_a_run_of_assets_that_a_red_check_has_failed_is_no_second_alert_unless_something_else_failed(
    instance: dg.DagsterInstance,
) -> None:
    is_broken = [False]

    @dg.asset
    def numbers() -> None:
        """Make them."""

    @dg.asset
    def others() -> None:
        if is_broken[0]:
            raise dg.Failure("1 merchant failed: m1: no such table", allow_retries=False)

    @dg.asset_check(asset=numbers, blocking=True)
    def numbers_are_right() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False)

    made = dg.Definitions(
        assets=[numbers, others],
        asset_checks=[numbers_are_right],
        jobs=[dg.define_asset_job("nightly", selection=dg.AssetSelection.all())],
    )
    for is_something_else, expected in ((False, []), (True, ["1 merchant failed: m1: no such table"])):
        is_broken[0] = is_something_else
        job = made.resolve_job_def("nightly")
        assert not job.execute_in_process(instance=instance, raise_on_error=False).success
        found = follow_jobs(instance, ["nightly"], as_of=datetime.now(UTC)).symptoms
        assert [one.detail for one in found] == expected


def test_a_run_that_is_retried_is_no_problem_yet(instance: dg.DagsterInstance) -> None:
    job, now = defs.resolve_job_def("sweep_points_job"), datetime.now(UTC)
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags={"dagster/will_retry": "true"})
    instance.report_run_failed(run)

    def seen(as_of: datetime) -> tuple[list[str], bool]:
        found = follow_jobs(instance, ["sweep_points_job"], as_of=as_of)
        return [one.name for one in found.symptoms], "sweep_points_job" in found.undecided

    assert seen(now) == ([], True)
    assert seen(now + timedelta(minutes=6)) == (["sweep_points_job"], False), "no retry came"
    retry = instance.create_run_for_job(
        job, status=dg.DagsterRunStatus.STARTED, tags={"dagster/parent_run_id": run.run_id}
    )
    assert seen(now + timedelta(minutes=6)) == ([], True)
    instance.report_run_failed(retry)
    assert seen(now + timedelta(minutes=6)) == (["sweep_points_job"], False)
    instance.delete_run(run.run_id)
    instance.delete_run(retry.run_id)
    assert seen(now) == ([], False), "a run that was removed is no problem any more"


def test_an_asset_that_was_made_too_long_ago_is_late(instance: dg.DagsterInstance) -> None:
    wanted = windows(defs.get_repository_def())
    assert wanted[EXPIRED_POINTS] == (None, timedelta(hours=26))
    now = datetime.now(UTC)
    assert follow_freshness(instance, wanted, as_of=now).undecided == {key.to_user_string() for key in wanted}
    instance.report_runless_asset_event(dg.AssetMaterialization(EXPIRED_POINTS, partition="m1"))
    only = {EXPIRED_POINTS: wanted[EXPIRED_POINTS]}
    assert follow_freshness(instance, only, as_of=now + timedelta(hours=25.9)).symptoms == ()
    (found,) = follow_freshness(instance, only, as_of=now + timedelta(hours=26.1)).symptoms
    assert (found.name, found.state.value) == ("loyalty/expired_points", "red")
    with_warning = {EXPIRED_POINTS: (timedelta(hours=25), timedelta(hours=26))}
    (found,) = follow_freshness(instance, with_warning, as_of=now + timedelta(hours=25.5)).symptoms
    assert found.state.value == "yellow"


def test_the_queue_is_followed_without_its_check(
    shop: Shop, instance: dg.DagsterInstance, database_url: str, hook: Webhook, alerting: Alerting
) -> None:
    queue, name = Queue(shop), "few_updates_wait_in_the_queue"
    number = queue.report("o", 0, 1_000_000)
    tick(instance, database_url)
    assert hook.events == []
    shop.run("UPDATE loyalty.reconciliation_queue SET parked_at = now()")
    tick(instance, database_url)
    shop.run("UPDATE loyalty.reconciliation_queue SET created_at = now() - interval '25 hours'")
    tick(instance, database_url)
    report(instance, PASSED, name=name)
    tick(instance, database_url)
    assert hook.events == [("started", name), ("worse", name)]
    (alert,) = hook.taken[1]["alerts"]
    assert (alert["severity"], alert["merchants"], alert["numbers"]["parked"]) == ("P1", ["m1"], 1)
    shop.run("DELETE FROM loyalty.reconciliation_queue WHERE queue_id = :number", number=number)
    tick(instance, database_url)
    alerting.wait(minutes=5)
    tick(instance, database_url)
    assert hook.events[2:] == [("ended", name)]


# --- which run says what ---


def failed_run(instance: dg.DagsterInstance, job: str, **more) -> str:
    """Return where the failed run is that is told of a job; '' for none."""
    found = follow_jobs(instance, [job], as_of=datetime.now(UTC), **more).symptoms
    return found[0].place.removeprefix("/runs/") if found else ""


@pytest.fixture
def three_merchants(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("merchant", ["m1", "m2", "m3"])


@pytest.mark.usefixtures("three_merchants")
def test_a_failed_night_is_not_ended_by_a_run_of_one_merchant_or_a_dry_run(instance: dg.DagsterInstance) -> None:
    job = "expire_points_job"
    night = run_of(instance, job, FAILURE, tags=ALL_NIGHT, run_config=FOR_EARNEST)
    run_of(instance, job, SUCCESS, tags=ONE_MERCHANT, run_config=FOR_EARNEST)
    assert failed_run(instance, job) == night.run_id
    by_hand = {name: value for name, value in ALL_NIGHT.items() if "range" in name}
    run_of(instance, job, SUCCESS, tags=by_hand)
    assert failed_run(instance, job) == night.run_id, "a dry run unless told otherwise"
    run_of(instance, job, SUCCESS, tags=by_hand, run_config=FOR_EARNEST)
    assert failed_run(instance, job) == ""


@pytest.mark.usefixtures("three_merchants")
@pytest.mark.parametrize("how", ["the next night", "a re-execution"])
def test_a_failed_night_is_ended_by_the_next_one_or_by_its_re_execution(instance: dg.DagsterInstance, how: str) -> None:
    job = "expire_points_job"
    night = run_of(instance, job, FAILURE, tags=ALL_NIGHT, run_config=FOR_EARNEST)
    options = {"tags": ALL_NIGHT} if how == "the next night" else {"root_run_id": night.run_id}
    run_of(instance, job, SUCCESS, run_config=FOR_EARNEST, parent_run_id=options.get("root_run_id"), **options)
    assert failed_run(instance, job) == ""


def test_a_night_that_fails_after_a_later_run_has_succeeded_is_told(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("merchant", ["m1", "m2", "m3"])
    night = begin(instance, "expire_points_job", tags=ALL_NIGHT, run_config=FOR_EARNEST)
    run_of(instance, "expire_points_job", SUCCESS, tags=ONE_MERCHANT, run_config=FOR_EARNEST)
    end(instance, night, FAILURE)
    assert failed_run(instance, "expire_points_job") == night.run_id


@pytest.mark.usefixtures("three_merchants")
def test_a_failed_proof_of_everything_is_not_ended_by_one_of_what_is_new(instance: dg.DagsterInstance) -> None:
    def proof(schedule: str, is_full: bool) -> dict:
        config = {"full": is_full, "everybody": True}
        return {
            "tags": {**ALL_NIGHT, "dagster/schedule_name": schedule},
            "run_config": {"ops": {"balance_integrity": {"config": config}}},
        }

    job = "integrity_job"
    night = run_of(instance, job, FAILURE, **proof("integrity_nightly_schedule", True))
    run_of(instance, job, SUCCESS, **proof("integrity_schedule", False))
    assert failed_run(instance, job) == night.run_id
    hour = run_of(instance, job, FAILURE, **proof("integrity_schedule", False))
    assert failed_run(instance, job) == hour.run_id, "the newest one"
    run_of(instance, job, SUCCESS, **proof("integrity_schedule", False))
    assert failed_run(instance, job) == night.run_id
    run_of(instance, job, SUCCESS, **proof("integrity_nightly_schedule", True))
    assert failed_run(instance, job) == ""


def test_failed_fixes_are_not_ended_by_a_dry_run_or_by_those_of_one_merchant(instance: dg.DagsterInstance) -> None:
    def fixes(**config: object) -> dict:
        return {"run_config": {"ops": {"fix_subscriptions": {"config": config}}}}

    job = "fix_subscriptions_job"
    failed = run_of(instance, job, FAILURE, **fixes(dry_run=False))
    run_of(instance, job, SUCCESS)
    assert failed_run(instance, job) == failed.run_id, "a dry run unless told otherwise"
    run_of(instance, job, SUCCESS, **fixes(dry_run=False, merchants=["m1"]))
    assert failed_run(instance, job) == failed.run_id
    run_of(instance, job, SUCCESS, **fixes(dry_run=False))
    assert failed_run(instance, job) == ""
    report = "subscription_report_job"
    failed = run_of(instance, report, FAILURE)
    one = {"ops": {"loyalty__subscription_report": {"config": {"merchant": "m1"}}}}
    run_of(instance, report, SUCCESS, run_config=one)
    assert failed_run(instance, report) == failed.run_id


def test_the_failure_of_a_job_that_has_nothing_left_to_do_is_over(shop: Shop, instance: dg.DagsterInstance) -> None:
    job = "drain_reconciliation_queue_job"
    Queue(shop).report("o", 25, 0)
    failed = run_of(instance, job, FAILURE)
    assert failed_run(instance, job, idle=idle_jobs(shop.engine)) == failed.run_id
    shop.run("DELETE FROM loyalty.reconciliation_queue")
    assert failed_run(instance, job, idle=idle_jobs(shop.engine)) == ""


def test_a_failed_run_that_was_removed_or_is_a_week_old_is_over(
    instance: dg.DagsterInstance, database_url: str, hook: Webhook, alerting: Alerting
) -> None:
    job = "reports_job"
    failed = run_of(instance, job, FAILURE)
    tick(instance, database_url)
    instance.delete_run(failed.run_id)
    tick(instance, database_url)
    alerting.wait(minutes=5)
    tick(instance, database_url)
    assert hook.events == [("started", job), ("ended", job)]
    run_of(instance, job, FAILURE)
    for days, expected in ((6.9, [job]), (7.1, [])):
        found = follow_jobs(instance, [job], as_of=datetime.now(UTC) + timedelta(days=days))
        assert ([one.name for one in found.symptoms], found.undecided) == (expected, set())


def test_a_red_check_stays_what_it_is_when_its_newest_run_fails(
    shop: Shop, instance: dg.DagsterInstance, database_url: str, hook: Webhook, alerting: Alerting
) -> None:
    report(instance, RED, metadata={"findings": 3})
    tick(instance, database_url)
    run_of(instance, "integrity_checks_job", FAILURE)
    tick(instance, database_url)
    assert [event for event in hook.events if event[1] == NAME] == [("started", NAME)]
    (found,) = (one for one in alerting.problems() if one.name == NAME)
    assert (found.severity.value, found.title, found.numbers) == ("P0", f"{NAME} is red", {"findings": 3})
    assert found.detail == "3 orders have other points. Its newest run failed before it had a result."


def test_a_check_whose_lost_run_is_retried_is_no_problem_yet(instance: dg.DagsterInstance) -> None:
    now, keys = datetime.now(UTC), [dg.AssetCheckKey(BALANCE_INTEGRITY, NAME)]
    lost = run_of(instance, "integrity_checks_job", FAILURE, tags={"dagster/will_retry": "true"})

    def seen(as_of: datetime) -> tuple[list[str], set[str]]:
        found = follow_checks(instance, keys, as_of=as_of)
        return [one.title for one in found.symptoms], set(found.undecided)

    assert seen(now) == ([], {NAME})
    assert seen(now + timedelta(minutes=6)) == ([f"{NAME} could not run"], set()), "no retry came"
    begin(instance, "integrity_checks_job", tags={"dagster/parent_run_id": lost.run_id})
    assert seen(now + timedelta(minutes=6)) == ([], {NAME})


def test_a_cancelled_run_does_not_end_that_a_check_could_not_run(instance: dg.DagsterInstance) -> None:
    keys = [dg.AssetCheckKey(BALANCE_INTEGRITY, NAME)]
    report(instance, PASSED)
    run_of(instance, "integrity_checks_job", FAILURE)
    (found,) = follow_checks(instance, keys, as_of=datetime.now(UTC)).symptoms
    assert found.state is State.BROKEN
    instance.report_run_canceled(begin(instance, "integrity_checks_job"))
    found = follow_checks(instance, keys, as_of=datetime.now(UTC))
    assert (found.symptoms, found.undecided) == ((), {NAME})


# --- runs that somebody started in the UI ---


@pytest.mark.usefixtures("three_merchants")
def test_a_failed_run_by_hand_is_told_per_asset_until_a_newer_one_makes_what_it_should_have_made(
    instance: dg.DagsterInstance, database_url: str, hook: Webhook, alerting: Alerting
) -> None:
    def problem() -> Problem:
        (found,) = (one for one in alerting.problems() if one.name == name)
        return found

    name = "by_hand/loyalty/awarded_points"
    failed = by_hand(instance, FAILURE, AWARDED_POINTS, tags={"dagster/partition": "m2"})
    tick(instance, database_url)
    (alert,) = (one for one in hook.taken[0]["alerts"] if one["source"] == "job")
    assert (alert["name"], alert["severity"]) == (name, "P2")
    assert alert["title"] == "loyalty/awarded_points, started by hand, failed"
    assert problem().place == f"/runs/{failed.run_id}"
    by_hand(instance, SUCCESS, AWARDED_POINTS, tags={"dagster/partition": "m1"})
    tick(instance, database_url)
    assert problem().gone_since is None, "another merchant"
    sweep = {name: value for name, value in ALL_NIGHT.items() if "range" in name}
    run_of(instance, "sweep_points_job", SUCCESS, tags=sweep)
    tick(instance, database_url)
    assert problem().gone_since is not None
    by_hand(instance, FAILURE, AWARDED_POINTS, tags={"dagster/partition": "m3"})
    tick(instance, database_url)
    by_hand(instance, SUCCESS, AWARDED_POINTS, tags={"dagster/partition": "m3"})
    tick(instance, database_url)
    assert problem().gone_since is not None


def test_of_a_run_by_hand_only_the_assets_that_were_not_made_are_told(instance: dg.DagsterInstance) -> None:
    @dg.asset
    def numbers() -> None:
        """Make them."""

    @dg.asset(deps=[numbers])
    def others() -> None:
        raise dg.Failure("no such table", allow_retries=False)

    made = dg.Definitions(assets=[numbers, others]).resolve_implicit_global_asset_job_def()
    assert made is not None
    assert not made.execute_in_process(instance=instance, raise_on_error=False).success
    (found,) = follow_runs_by_hand(instance, {}, as_of=datetime.now(UTC)).symptoms
    assert (found.name, found.detail) == ("by_hand/others", "no such table")


# --- what can't be used ---


def test_without_a_channel_problems_are_tracked_and_the_sensor_says_that_nobody_is_told(
    instance: dg.DagsterInstance, database_url: str, alerting: Alerting
) -> None:
    report(instance, RED)
    found = tick(instance, database_url)
    assert found.startswith("No alert channel is configured, so nobody is told: set LOYALTY_ALERT_SLACK_URL")
    assert "Open problems: 1" in found
    assert alerting.problem().first_notified_at is None
    result = run_job(instance, "alert_checks_job")
    (check,) = result.get_asset_check_evaluations()
    assert (check.passed, result.success) == (True, True)
    assert "None is configured" in (check.description or "")


def test_a_table_that_cannot_be_used_is_told_and_alerts_go_on(
    instance: dg.DagsterInstance, database_url: str, hook: Webhook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOYALTY_ALERT_TABLE", str(tmp_path / "alerts.md"))
    report(instance, RED)
    tick(instance, database_url)
    (message,) = hook.taken
    assert [(one["name"], one["severity"]) for one in message["alerts"]] == [(NAME, "P1"), ("alert_table", "P1")]
    assert "can't be read (FileNotFoundError)" in message["text"]


def test_a_dead_channel_turns_its_check_red_until_it_works_again(
    instance: dg.DagsterInstance,
    database_url: str,
    hook: Webhook,
    alerting: Alerting,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOYALTY_ALERT_SLACK_URL", f"http://127.0.0.1:{closed_port()}/services/{TOKEN}")
    report(instance, RED)
    assert "1 by webhook" in tick(instance, database_url)
    result = run_job(instance, "alert_checks_job")
    (check,) = result.get_asset_check_evaluations()
    assert (check.passed, check.severity, result.success) == (False, dg.AssetCheckSeverity.ERROR, False)
    assert "slack fails: can't be reached (ConnectionError)" in (check.description or "")
    states = {row.data["channel"]: row.data["state"] for row in check.metadata["by channel"].value.records}  # type: ignore[union-attr]
    assert states == {"slack": "fails", "webhook": "works", "email": "not configured"}
    tick(instance, database_url)
    assert hook.events[-1] == ("started", "alert_channels_work")
    with webhook() as slack:
        monkeypatch.setenv("LOYALTY_ALERT_SLACK_URL", slack.url)
        alerting.wait(hours=1)
        assert "1 by slack" in tick(instance, database_url)
    assert run_job(instance, "alert_checks_job").success


def test_when_nobody_can_be_told_the_tick_fails(instance: dg.DagsterInstance, database_url: str, hook: Webhook) -> None:
    hook.always = 410
    report(instance, RED)
    with pytest.raises(AlertNotSentError, match="no channel took the message \\(webhook: answered 410"):
        tick(instance, database_url)
    assert "1 wait for a channel that works" in tick(instance, database_url)


def test_one_setting_that_cannot_be_used_silences_no_other_and_turns_the_check_red(
    instance: dg.DagsterInstance, database_url: str, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOYALTY_ALERT_SLACK_URL", f"hooks.slack.com/{TOKEN}")
    report(instance, RED)
    assert "1 by webhook" in tick(instance, database_url)
    (check,) = run_job(instance, "alert_checks_job").get_asset_check_evaluations()
    assert "LOYALTY_ALERT_SLACK_URL is no address" in (check.description or "")
    assert not check.passed
    monkeypatch.delenv("LOYALTY_ALERT_WEBHOOK_URL")
    with pytest.raises(AlertSettingsError, match="LOYALTY_ALERT_SLACK_URL is no address"):
        tick(instance, database_url)


def test_without_the_ledgers_database_the_tick_fails(instance: dg.DagsterInstance, hook: Webhook) -> None:
    with pytest.raises(OperationalError):
        tick(instance, f"postgresql://nobody@127.0.0.1:{closed_port()}/shop")


def test_no_address_of_a_channel_is_in_anything_that_is_written(
    shop: Shop,
    instance: dg.DagsterInstance,
    database_url: str,
    hook: Webhook,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.NOTSET)
    monkeypatch.setenv("LOYALTY_ALERT_EMAIL_TO", "secret.person@example.com")
    monkeypatch.setenv("LOYALTY_MAIL_FROM", "loyalty@example.com")
    monkeypatch.setenv("LOYALTY_MAIL_URL", f"smtp://{TOKEN}:{TOKEN}@localhost:{closed_port()}")
    written = []
    for answer in (200, 302, 404, 500, "close the connection without an answer"):
        shop.run("TRUNCATE loyalty.alert_channels, loyalty.alert_problems CASCADE")
        hook.always = answer
        report(instance, RED, description="told to ann@example.com")
        try:
            written.append(tick(instance, database_url))
        except AlertNotSentError as error:
            written.append(repr(error))
    hook.always = None
    monkeypatch.setenv("LOYALTY_ALERT_WEBHOOK_URL", f"https://127.0.0.1:{hook.port}/{TOKEN}")
    shop.run("TRUNCATE loyalty.alert_channels, loyalty.alert_problems CASCADE")
    with pytest.raises(AlertNotSentError) as caught:
        tick(instance, database_url)
    written.append(str(caught.value))
    assert "TLS" in written[-1]
    run = run_job(instance, "alert_checks_job")
    written += [entry.to_json() for entry in instance.all_logs(run.run_id)]
    written += [str(shop.rows(f"SELECT t::text FROM loyalty.{name} AS t")) for name in ("alert_channels",)]
    output = capfd.readouterr()
    everything = "\n".join([*written, caplog.text, output.out, output.err])
    assert "answered 500" in everything
    for secret in (TOKEN, "secret.person", "ann@example.com"):
        assert secret not in everything.replace("told to ann@example.com", "")
    assert "told to <address>" in hook.taken[0]["text"]
    assert ALERTS.path == ["loyalty", "alerts"]
