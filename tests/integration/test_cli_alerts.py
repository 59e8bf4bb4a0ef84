"""`loyalty alerts` on problems, channels and silences."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from loyalty_pipelines.db import alerts, merchant_jobs
from loyalty_pipelines.db.alerts_run import SENSOR, observe
from loyalty_pipelines.domain.alert_settings import alert_settings
from loyalty_pipelines.domain.alerts import Sight, Source, State
from loyalty_pipelines.processes import demo_mail_environment
from tests.alerting import Alerting, symptom
from tests.cli import Cli
from tests.mail_server import closed_port
from tests.queued import Queue
from tests.shop import Shop
from tests.webhook import TOKEN, Webhook, webhook

NAME = "no_order_is_awarded_twice"
SAID = ("--reason", "ticket 7", "--actor", "eve")


@pytest.fixture
def cli(shop: Shop, database_url: str) -> Cli:
    return Cli(database_url)


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    with webhook() as running:
        monkeypatch.setenv("LOYALTY_ALERT_WEBHOOK_URL", running.url)
        yield running


@pytest.fixture
def alerting(shop: Shop, hook: Webhook) -> Alerting:
    made = Alerting(shop.engine)
    made.use(hook)
    return made


def test_the_list_shows_what_is_wrong_and_what_was_told_and_with_all_what_is_over(cli: Cli, alerting: Alerting) -> None:
    assert cli.ok("alerts", "list").out == "No problems.\n"
    alerting.tick("a", b=State.YELLOW)
    found = cli.ok("alerts", "list").out
    assert "P0" in found and "a is red" in found and "webhook" in found
    alerting.tick("a")
    alerting.wait(minutes=5)
    alerting.tick("a")
    document = cli.ok("alerts", "list", "--json").document
    assert [(one["name"], one["severity"], one["reminders"]) for one in document["problems"]] == [("a", "P0", 0)]
    assert [one["name"] for one in cli.ok("alerts", "list", "--all", "--json").document["problems"]] == ["a", "b"]


def test_a_test_says_what_each_channel_answered_and_remembers_it(
    cli: Cli, hook: Webhook, alerting: Alerting, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.ok("alerts", "test").out == "webhook   took it\n"
    assert hook.taken[0]["alerts"] == []
    monkeypatch.setenv("LOYALTY_ALERT_SLACK_URL", f"http://127.0.0.1:{closed_port()}/{TOKEN}")
    found = cli.run("alerts", "test")
    assert (found.status, len(hook.taken)) == (1, 2)
    assert "slack     did not take it: can't be reached" in found.out
    assert TOKEN not in found.out + found.err
    assert cli.run("alerts", "test", "--channel", "webhook").status == 0
    assert "The channel email is not configured" in cli.refused(2, "alerts", "test", "--channel", "email")
    assert "The alert channel slack fails" in cli.run("alerts", "check").out


def test_a_wrong_file_of_authorities_is_named_and_the_other_channels_are_asked(
    cli: Cli, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/authorities.pem")
    monkeypatch.setenv("LOYALTY_ALERT_SLACK_URL", f"https://127.0.0.1:{closed_port()}/{TOKEN}")
    found = cli.run("alerts", "test")
    assert (found.status, len(hook.taken)) == (1, 1)
    assert "REQUESTS_CA_BUNDLE" in found.out


def test_a_setting_that_cannot_be_used_fails_the_test_of_the_others(
    cli: Cli, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOYALTY_ALERT_P1", "pager")
    found = cli.run("alerts", "test")
    assert found.status == 1
    assert "! LOYALTY_ALERT_P1 names a channel that does not exist" in found.out


def test_without_a_channel_there_is_nothing_to_test(cli: Cli) -> None:
    assert "No alert channel is configured" in cli.refused(1, "alerts", "test")


def test_a_silence_is_listed_and_can_be_ended(cli: Cli, alerting: Alerting) -> None:
    alerting.see(few_mails_fail=State.YELLOW)
    out = cli.ok("alerts", "silence", "few_mails_fail", "--hours", "48", *SAID).out
    assert out.startswith("few_mails_fail is silenced until ")
    alerting.tell()
    (silence,) = cli.ok("alerts", "list", "--json").document["silences"]
    assert (silence["name"], silence["reason"], silence["actor"]) == ("few_mails_fail", "ticket 7", "eve")
    assert "ticket 7" in cli.ok("alerts", "list").out
    assert cli.ok("alerts", "unsilence", "few_mails_fail").out == "1 silence of few_mails_fail ended.\n"
    assert cli.ok("alerts", "unsilence", "few_mails_fail").out == "few_mails_fail was not silenced.\n"
    assert cli.ok("alerts", "list", "--json").document["silences"] == []
    assert len(cli.ok("alerts", "list", "--all", "--json").document["silences"]) == 1
    assert alerting.tell().sent == {"webhook": 1}


def test_what_can_be_p0_is_silenced_for_a_day_at_most_and_what_is_unknown_not_at_all(cli: Cli) -> None:
    assert cli.ok("alerts", "silence", NAME, "--hours", "24", *SAID)
    assert "P0 is silenced for at most 24 hours" in cli.refused(1, "alerts", "silence", NAME, "--hours", "25", *SAID)
    refused = cli.refused(1, "alerts", "silence", "few_mail_fails", "--hours", "1", *SAID)
    assert "did you mean 'few_mails_fail'" in refused
    assert "says nothing" in cli.refused(2, "alerts", "silence", NAME, "--hours", "1", "--reason", " ")


def fail(alerting: Alerting, at: datetime) -> None:
    """Let the sensor see that the newest run of a job failed at this time."""
    failed = symptom("release_holds_job", source=Source.JOB, since=at)
    observe(alerting.engine, SENSOR, Sight(symptoms=(failed,)), alerting.table)


def test_a_failed_run_that_somebody_closes_is_over_until_another_one_fails(
    cli: Cli, alerting: Alerting, hook: Webhook
) -> None:
    at = datetime.now(UTC) - timedelta(minutes=1)
    fail(alerting, at)
    alerting.tell()
    assert cli.ok("alerts", "close", "release_holds_job", *SAID).out == "release_holds_job is over.\n"
    fail(alerting, at)
    alerting.tell()
    assert hook.events == [("started", "release_holds_job"), ("ended", "release_holds_job")]
    assert "Closed by hand: ticket 7" in hook.taken[1]["text"]
    (problem,) = cli.ok("alerts", "list", "--all", "--json").document["problems"]
    assert (problem["closed_by"], problem["close_reason"]) == ("eve", "ticket 7")
    alerting.wait(days=6)
    fail(alerting, at - timedelta(days=6))
    alerting.tell()
    assert len(hook.events) == 2, "it is the same run"
    fail(alerting, datetime.now(UTC))
    alerting.tell()
    assert hook.events[2:] == [("started", "release_holds_job")]


def test_only_the_problem_of_a_failed_run_is_closed_by_hand(cli: Cli, alerting: Alerting) -> None:
    alerting.see("b")
    assert "b is no failed run" in cli.refused(1, "alerts", "close", "b", *SAID)
    nothing = cli.refused(1, "alerts", "close", "release_holds_job", *SAID)
    assert "There is no open problem 'release_holds_job'" in nothing
    assert "says nothing" in cli.refused(2, "alerts", "close", "b", "--reason", " ")
    assert [one.name for one in alerting.problems(is_all=False)] == ["b"]


def test_a_demo_calls_nobody(hook: Webhook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOYALTY_HOME", str(tmp_path))
    monkeypatch.setenv("LOYALTY_ALERT_EMAIL_TO", "ops@example.com")
    assert alert_settings({**os.environ, **demo_mail_environment()}).channels == ()


# --- from outside Dagster ---


def test_the_watchdog_says_what_the_database_alone_knows(cli: Cli, shop: Shop, alerting: Alerting) -> None:
    found = cli.run("alerts", "check")
    assert (found.status, found.out) == (
        1,
        "alerts_sensor has never looked: is Dagster's daemon running, is the sensor on, do its ticks fail?\n",
    )
    alerting.tick()
    assert cli.ok("alerts", "check").out == "Nothing is wrong.\n"
    Queue(shop).report("o", 0, 1_000_000)
    shop.run("UPDATE loyalty.reconciliation_queue SET created_at = now() - interval '25 hours'")
    shop.run(
        "INSERT INTO loyalty.findings (merchant_id, subject, class, severity, object_type, object_id, closed_at) "
        "VALUES ('m1', 'integrity', 'balance_differs', 'error', 'account', '1', NULL), "
        "('m1', 'integrity', 'balance_differs', 'error', 'account', '2', now()), "
        "('m1', 'integrity', 'chain_broken', 'warning', 'account', '1', NULL)"
    )
    with shop.engine.begin() as conn:
        merchant_jobs.record_successes(conn, ["m1", "m2"], job="expired_points", run_id="r")
        merchant_jobs.record_failure(conn, "m3", job="expired_points", run_id="r", failure="no such table")
    shop.run("UPDATE loyalty.merchant_jobs SET failed_at = now() - interval '1 day' WHERE merchant_id = 'm1'")
    found = cli.run("alerts", "check", "--json")
    assert (found.status, found.document["is_fine"]) == (1, False)
    red, findings, jobs = found.document["problems"]
    assert red.startswith("The reconciliation queue is red: 1 point updates wait, the oldest for 1500.0 minutes")
    assert findings.startswith("1 open findings balance_differs of integrity at 1 merchants, since ")
    assert jobs == "The newest attempt of expired_points failed at 1 merchants."


def test_the_watchdog_tells_once_that_the_sensor_does_not_look_and_once_that_it_does_again(
    cli: Cli, hook: Webhook, alerting: Alerting
) -> None:
    alerting.tick("b")
    assert cli.ok("alerts", "check", "--send").status == 0
    assert hook.events == [("started", "b")]
    alerting.wait(minutes=11)
    for _ in range(2):
        assert cli.run("alerts", "check", "--send").status == 1
    assert hook.events[1:] == [("started", "alerts_sensor")]
    (alert,) = hook.taken[1]["alerts"]
    assert (alert["severity"], alert["source"]) == ("P1", "watch")
    assert "alerts_sensor has not looked for 11 min" in alert["detail"]
    assert alerting.tick("b").sent == {}
    cli.ok("alerts", "check", "--send")
    alerting.wait(minutes=5)
    cli.ok("alerts", "check", "--send")
    assert hook.events[2:] == [("ended", "alerts_sensor")]
    assert [one.name for one in alerting.problems(is_all=False)] == ["b"]


def test_the_watchdog_that_cannot_tell_anybody_says_so(cli: Cli, hook: Webhook) -> None:
    hook.always = 410
    assert "no channel took the message (webhook: answered 410" in cli.refused(1, "alerts", "check", "--send")


def test_the_sensor_that_looks_again_ends_its_own_silence_though_nobody_asks_from_outside(
    cli: Cli, hook: Webhook, alerting: Alerting
) -> None:
    alerting.tick()
    alerting.wait(minutes=11)
    cli.run("alerts", "check", "--send")
    for _ in range(2):
        alerting.tick()
        alerting.wait(minutes=5)
    alerting.wait(hours=5)
    alerting.tick()
    assert hook.events == [("started", "alerts_sensor"), ("ended", "alerts_sensor")]


def test_the_watchdog_tells_nothing_of_the_sensors_and_decides_nothing_about_its_channels(
    cli: Cli, hook: Webhook, alerting: Alerting, monkeypatch: pytest.MonkeyPatch
) -> None:
    alerting.see("b")
    with alerting.engine.begin() as conn:
        conn.exec_driver_sql("UPDATE loyalty.alert_observers SET looked_at = now() - interval '11 minutes'")
    monkeypatch.setenv("LOYALTY_ALERT_SLACK_URL", f"http://127.0.0.1:{closed_port()}/{TOKEN}")
    cli.run("alerts", "check", "--send")
    assert hook.events == [("started", "alerts_sensor")]
    with alerting.engine.connect() as conn:
        assert alerts.channel_health(conn) == {}
    alerting.tick("b")
    assert hook.events[1:] == [("started", "b")]
