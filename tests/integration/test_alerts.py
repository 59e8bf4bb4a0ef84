"""What is told of a problem, how often, to whom: on a real database and a real HTTP server."""

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine

from loyalty_pipelines.db import alerts
from loyalty_pipelines.db.alerts_run import SENSOR, observe
from loyalty_pipelines.domain.alert_messages import Links, Message, message_about
from loyalty_pipelines.domain.alerts import Claimed, Sight, Source, State
from loyalty_pipelines.resources.alert_channels import channels_for
from tests.alerting import Alerting, symptom
from tests.webhook import TAKE_AND_CLOSE, TOKEN, Webhook, webhook


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as running:
        yield running


@pytest.fixture
def alerting(engine: Engine, hook: Webhook) -> Alerting:
    made = Alerting(engine)
    made.use(hook)
    return made


def test_a_problem_is_told_once_reminded_of_once_an_interval_and_told_once_when_it_is_over(
    alerting: Alerting, hook: Webhook
) -> None:
    alerting.tick()
    assert hook.events == []
    for _ in range(3):
        alerting.tick("b")
    assert hook.events == [("started", "b")]
    alerting.wait(hours=3, minutes=59)
    alerting.tick("b")
    assert len(hook.events) == 1
    for _ in range(2):
        alerting.wait(minutes=2)
        alerting.tick("b")
    assert hook.events[1:] == [("reminder", "b")]
    alerting.wait(hours=4)
    alerting.tick("b")
    assert [one["alerts"][0]["reminders"] for one in hook.taken] == [0, 1, 2]
    alerting.tick()
    alerting.tick()
    assert len(hook.events) == 3, "it may come back"
    alerting.wait(minutes=5)
    for _ in range(3):
        alerting.tick()
    assert hook.events[3:] == [("ended", "b")]
    found = alerting.problem()
    assert (found.ended_at is not None, found.reminders, found.last_channel) == (True, 2, "webhook")


def test_a_problem_that_gets_worse_is_told_once_more_and_one_that_gets_better_is_not(
    alerting: Alerting, hook: Webhook
) -> None:
    alerting.tick(b=State.YELLOW)
    assert hook.taken[0]["severity"] == "P2"
    for _ in range(2):
        alerting.tick(b=State.RED)
    assert (hook.events, hook.taken[1]["severity"]) == ([("started", "b"), ("worse", "b")], "P1")
    for state in (State.YELLOW, State.RED, State.YELLOW, State.RED):
        alerting.tick(b=state)
    assert len(hook.events) == 2
    alerting.tick()
    alerting.wait(minutes=5)
    alerting.tick()
    assert (hook.events[-1], hook.taken[-1]["severity"]) == (("ended", "b"), "P1")


def test_what_could_not_run_is_never_the_worst(alerting: Alerting, hook: Webhook) -> None:
    alerting.tick(a=State.BROKEN, c=State.BROKEN)
    assert [(one["name"], one["severity"]) for one in hook.taken[0]["alerts"]] == [("a", "P1"), ("c", "P2")]
    alerting.tick(a=State.RED, c=State.BROKEN)
    assert (hook.events[-1], hook.taken[-1]["severity"]) == (("worse", "a"), "P0")


def test_a_severity_that_is_sent_to_nobody_is_tracked_and_a_name_without_severity_is_not(
    alerting: Alerting, hook: Webhook
) -> None:
    alerting.environment["LOYALTY_ALERT_P2"] = "none"
    assert alerting.see("quiet", b=State.YELLOW) == 1
    alerting.tell()
    alerting.wait(days=2)
    alerting.tell()
    assert hook.events == []
    alerting.tick("quiet", b=State.RED)
    assert hook.events == [("worse", "b")]


def test_thirty_problems_at_once_are_one_message(alerting: Alerting, hook: Webhook) -> None:
    names = [f"check_{number:02}" for number in range(30)]
    alerting.tick("a", *names)
    (message,) = hook.taken
    assert (len(message["alerts"]), message["severity"], message["alerts"][0]["name"]) == (31, "P0", "a")
    assert message["subject"] == "31 problems (1 P0, 30 P1): a, check_00, check_01, ..."
    assert all(name in message["text"] for name in names)
    assert message["text"].count("3 orders.") == 10
    alerting.wait(hours=4)
    alerting.tick("a", *names)
    assert len(hook.taken) == 2
    alerting.tick()
    alerting.wait(minutes=5)
    alerting.tick()
    assert len(hook.taken) == 3
    assert hook.taken[2]["subject"].startswith("31 problems are over: a, ")


def test_what_flaps_becomes_one_problem(alerting: Alerting, hook: Webhook) -> None:
    """For a day it is gone for half of every twenty minutes."""
    for _ in range(72):
        alerting.tick("b")
        alerting.wait(minutes=10)
        alerting.tick()
        alerting.wait(minutes=6)
        alerting.tick()
        alerting.wait(minutes=4)
    counts = {event: sum(found == event for found, _ in hook.events) for event in ("started", "ended", "reminder")}
    assert counts["started"] == counts["ended"] + 1 <= 3
    # One in four hours, and only while it is there.
    assert 3 <= counts["reminder"] <= 6
    alerting.wait(minutes=121)
    alerting.tick()
    assert hook.events[-1] == ("ended", "b")


def test_what_cannot_be_told_at_the_moment_neither_starts_nor_ends_a_problem(alerting: Alerting, hook: Webhook) -> None:
    alerting.tick("b", undecided=("a",))
    for _ in range(3):
        alerting.wait(minutes=10)
        alerting.tick(undecided=("a", "b"))
    assert hook.events == [("started", "b")]
    assert alerting.problem().gone_since is None


# --- silence ---


def silence(alerting: Alerting, name: str, hours: float) -> None:
    with alerting.engine.begin() as conn:
        alerts.silence(conn, name, time=timedelta(hours=hours), reason="ticket 7", actor="eve")


def test_a_silenced_problem_is_tracked_and_told_when_the_silence_ends(alerting: Alerting, hook: Webhook) -> None:
    silence(alerting, "b", 2)
    assert alerting.see("b") == 1
    alerting.tell()
    alerting.wait(hours=1.9)
    alerting.tick("b")
    assert hook.events == []
    alerting.wait(hours=0.2)
    alerting.tick("b")
    assert hook.events == [("started", "b")]


def test_what_was_told_before_it_was_silenced_gets_no_reminder_and_its_all_clear(
    alerting: Alerting, hook: Webhook
) -> None:
    alerting.tick("b")
    silence(alerting, "b", 48)
    alerting.wait(hours=30)
    alerting.tick("b")
    assert len(hook.events) == 1
    alerting.tick()
    alerting.wait(minutes=5)
    alerting.tick()
    assert hook.events == [("started", "b"), ("ended", "b")]
    alerting.tick("b")
    alerting.tick()
    alerting.wait(minutes=20)
    alerting.tick()
    assert len(hook.events) == 2, "what began and ended in silence is told nobody"


def test_a_p0_is_silenced_for_a_day_whenever_it_became_one(alerting: Alerting, hook: Webhook) -> None:
    silence(alerting, "a", 100)
    alerting.wait(hours=23)
    alerting.tick("a")
    assert hook.events == []
    alerting.wait(hours=2)
    alerting.tick(a=State.YELLOW)
    assert hook.events == [], "as P2 it is silenced"
    alerting.tick("a")
    assert hook.events == [("started", "a")]


# --- channels ---


def test_a_dead_channel_is_left_out_for_a_while_the_next_has_the_message_and_the_first_comes_back(
    alerting: Alerting, hook: Webhook
) -> None:
    with webhook(always=500) as slack:
        alerting.use(slack, name="SLACK")
        done = alerting.tick("b")
        assert (done.sent, done.unsent) == ({"webhook": 1}, 0)
        assert done.failures == {"slack": "answered 500"}
        assert (slack.requests, hook.events) == (2, [("started", "b")])
        done = alerting.tick("a", "b")
        assert (done.failures, slack.requests, len(hook.taken)) == ({}, 2, 2)
        with alerting.engine.connect() as conn:
            health = alerts.channel_health(conn)
        assert (health["slack"].failures, health["slack"].error, health["webhook"].failures) == (1, "answered 500", 0)
        alerting.wait(minutes=1)
        alerting.tick("a", "b", "c")
        assert slack.requests == 4, "after a minute it is tried again"
        alerting.wait(minutes=1)
        alerting.tick("a", "b", "c", "d")
        assert slack.requests == 4, "and then after two"
        slack.always = None
        alerting.wait(minutes=1)
        assert alerting.tick("a", "b", "c", "d", "e").sent == {"slack": 1}
        with alerting.engine.connect() as conn:
            health = alerts.channel_health(conn)
        assert (health["slack"].failures, health["slack"].failing_since, health["slack"].error) == (0, None, None)


def test_what_no_channel_takes_is_told_as_soon_as_one_does(alerting: Alerting, hook: Webhook) -> None:
    hook.always = 503
    done = alerting.tick("b")
    assert (done.sent, done.failures, done.unsent) == ({}, {"webhook": "answered 503"}, 1)
    done = alerting.tick("b")
    assert (done.failures, done.unsent, hook.requests) == ({}, 1, 2)
    hook.always = None
    alerting.wait(minutes=1)
    assert alerting.tick("b").sent == {"webhook": 1}
    assert hook.events == [("started", "b")]


def test_what_ends_before_anybody_could_be_told_is_told_nobody(alerting: Alerting, hook: Webhook) -> None:
    hook.always = 503
    alerting.tick("b")
    hook.always = None
    alerting.tick()
    alerting.wait(minutes=5)
    alerting.tick()
    assert (hook.events, alerting.problem().ended_at is not None) == ([], True)


def test_each_severity_goes_its_way_and_the_all_clear_to_where_the_alert_went(
    alerting: Alerting, hook: Webhook
) -> None:
    alerting.environment |= {"LOYALTY_ALERT_P0": "slack,webhook", "LOYALTY_ALERT_P1": "webhook"}
    with webhook() as slack:
        alerting.use(slack, name="SLACK")
        alerting.tick("a", "b")
        assert (len(slack.taken), hook.events) == (1, [("started", "b")])
        assert "P0 a is red" in slack.taken[0]["text"]
        alerting.tick("a", "b", "a2")
        slack.always = 500
        alerting.wait(hours=1, minutes=1)
        alerting.tick("a", "b", "a2")
        assert hook.events[-1] == ("reminder", "a"), "slack is dead"
        slack.always = None
        alerting.wait(hours=1)
        alerting.see("b", "a2")
        alerting.wait(minutes=5)
        alerting.tick("b", "a2")
        assert (hook.events[-1], len(slack.taken)) == (("ended", "a"), 1)


def test_a_channel_that_failed_in_a_round_is_asked_no_second_time_in_it(alerting: Alerting, hook: Webhook) -> None:
    with webhook(always=404) as slack:
        alerting.use(slack, name="SLACK")
        alerting.environment |= {"LOYALTY_ALERT_P0": "slack,webhook", "LOYALTY_ALERT_P1": "slack"}
        done = alerting.tick("a", "b")
        assert (slack.requests, hook.events, done.unsent) == (1, [("started", "a")], 1)


def test_a_round_that_takes_long_leaves_the_rest_to_the_next(alerting: Alerting, hook: Webhook) -> None:
    alerting.see("b")
    assert (alerting.tell(max_seconds=0).unsent, hook.requests) == (1, 0)
    assert alerting.tell().sent == {"webhook": 1}


# --- crashes, and two at once ---


def claim(alerting: Alerting) -> tuple[list[Claimed], datetime]:
    """Claim what is due and commit, as a sender does that dies then."""
    with alerting.engine.begin() as conn:
        claimed, as_of = alerts.claim(
            conn, sources=tuple(Source), remind_after=alerting.settings.remind_after, lease=timedelta(minutes=3)
        )
    assert as_of
    return claimed, as_of


def test_a_crash_between_claim_and_message_sends_it_once_after_the_lease(alerting: Alerting, hook: Webhook) -> None:
    alerting.see("b")
    assert len(claim(alerting)[0]) == 1
    assert (alerting.tick("b").sent, hook.events) == ({}, [])
    alerting.wait(minutes=3)
    for _ in range(2):
        alerting.tick("b")
    assert hook.events == [("started", "b")]


def test_a_crash_between_message_and_mark_sends_one_duplicate_with_the_same_key(
    alerting: Alerting, hook: Webhook
) -> None:
    alerting.see("b")
    claimed, as_of = claim(alerting)
    message = message_about(claimed, links=alerting.settings.links, as_of=as_of)
    channels_for(alerting.settings)["webhook"].send(message)
    alerting.tick("b")
    assert len(hook.taken) == 1
    alerting.wait(minutes=3)
    for _ in range(2):
        alerting.tick("b")
    assert [one["key"] for one in hook.taken] == [hook.taken[0]["key"]] * 2


def test_a_message_that_left_before_something_broke_is_not_sent_again_at_once(
    alerting: Alerting, hook: Webhook
) -> None:
    class SentAndBroken:
        def send(self, message: Message) -> str:
            channels_for(alerting.settings)["webhook"].send(message)
            raise RuntimeError("a bug")

    alerting.see("b")
    with pytest.raises(RuntimeError):
        alerting.tell({"webhook": SentAndBroken()})
    alerting.tick("b")
    assert len(hook.taken) == 1


def test_a_sender_whose_lease_has_ended_does_not_undo_what_another_one_wrote(alerting: Alerting, hook: Webhook) -> None:
    alerting.see("b")
    claimed, _ = claim(alerting)
    alerting.wait(minutes=4)
    alerting.tick("b")
    with alerting.engine.begin() as conn:
        alerts.mark(conn, claimed, channel="slack")
        alerts.give_back(conn, claimed)
    assert alerting.problem().last_channel == "webhook"


def test_two_at_once_tell_each_problem_once(alerting: Alerting, hook: Webhook) -> None:
    ready = threading.Barrier(4)

    def work() -> None:
        ready.wait()
        for _ in range(5):
            alerting.tick("a", "b", "c")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(hook.events) == [("started", "a"), ("started", "b"), ("started", "c")]
    assert len(alerting.problems()) == 3


def test_a_severity_that_rises_while_its_alert_is_on_its_way_is_not_lost(alerting: Alerting, hook: Webhook) -> None:
    class Rising:
        def send(self, message: Message) -> str:
            alerting.see("b")
            return channels_for(alerting.settings)["webhook"].send(message)

    alerting.see(b=State.YELLOW)
    alerting.tell({"webhook": Rising()})
    alerting.tick("b")
    assert (hook.events, hook.taken[1]["severity"]) == ([("started", "b"), ("worse", "b")], "P1")


def test_no_secret_is_stored(alerting: Alerting, hook: Webhook) -> None:
    hook.always = 404
    alerting.tick("b")
    with alerting.engine.connect() as conn:
        rows = [
            str(conn.exec_driver_sql(f"SELECT t::text FROM loyalty.{table} AS t").all())
            for table in ("alert_problems", "alert_channels", "alert_deliveries", "alert_silences")
        ]
    assert "answered 404" in rows[1]
    assert TOKEN not in "".join(rows)


# --- what is worse than what was told ---


def see_findings(alerting: Alerting, findings: int | None, state: State = State.RED, *, name: str = "a") -> None:
    """Let the sensor see a check with so many findings."""
    numbers = {} if findings is None else {"findings": findings}
    found = symptom(name, state, numbers=numbers)
    observe(alerting.engine, SENSOR, Sight(symptoms=(found,)), alerting.table)


def keys(hook: Webhook) -> list[str]:
    """Return the keys of all alerts that a receiver took."""
    return [alert["key"] for document in hook.taken for alert in document["alerts"]]


def test_each_rise_of_the_findings_has_a_key_of_its_own_and_a_resend_has_the_same(
    alerting: Alerting, hook: Webhook
) -> None:
    for findings in (1, 2, 3):
        see_findings(alerting, findings)
        alerting.tell()
    see_findings(alerting, 4)
    claimed, as_of = claim(alerting)
    channels_for(alerting.settings)["webhook"].send(message_about(claimed, links=Links(), as_of=as_of))
    alerting.wait(minutes=3)
    alerting.tell()
    assert [event for event, _ in hook.events] == ["started", "worse", "worse", "worse", "worse"]
    found = keys(hook)
    assert len(set(found)) == 4
    assert found[3] == found[4]
    assert hook.taken[3]["key"] == hook.taken[4]["key"]


def test_what_was_told_as_could_not_run_is_told_as_worse_when_it_is_red(alerting: Alerting, hook: Webhook) -> None:
    alerting.tick(b=State.BROKEN)
    for _ in range(2):
        alerting.tick(b=State.RED)
    assert hook.events == [("started", "b"), ("worse", "b")]
    assert hook.taken[1]["severity"] == "P1"


def test_findings_that_were_told_are_remembered_while_none_are_known(alerting: Alerting, hook: Webhook) -> None:
    see_findings(alerting, 500)
    alerting.tell()
    see_findings(alerting, None, State.YELLOW)
    alerting.wait(hours=24)
    alerting.tell()
    see_findings(alerting, 400)
    alerting.tell()
    assert [event for event, _ in hook.events] == ["started", "reminder"], "fewer than were told"
    see_findings(alerting, 900)
    alerting.tell()
    assert [event for event, _ in hook.events] == ["started", "reminder", "worse"]


def test_findings_that_rise_while_their_alert_is_on_its_way_are_not_lost(alerting: Alerting, hook: Webhook) -> None:
    class Rising:
        def send(self, message: Message) -> str:
            see_findings(alerting, 7)
            return channels_for(alerting.settings)["webhook"].send(message)

    see_findings(alerting, 3)
    alerting.tell({"webhook": Rising()})
    alerting.tell()
    assert hook.events == [("started", "a"), ("worse", "a")]
    assert [one["alerts"][0]["numbers"]["findings"] for one in hook.taken] == [3, 7]


def test_of_very_many_merchants_ten_are_named_and_all_are_counted(alerting: Alerting, hook: Webhook) -> None:
    found = symptom("b", merchants=tuple(f"m{number}" for number in range(300)))
    observe(alerting.engine, SENSOR, Sight(symptoms=(found,)), alerting.table)
    alerting.tell()
    (alert,) = hook.taken[0]["alerts"]
    assert (len(alert["merchants"]), alert["merchants_total"]) == (10, 300)
    assert "m8, m9 and 290 more" in hook.taken[0]["text"]


# --- sent, and not answered ---


def test_what_is_taken_without_an_answer_is_sent_three_times_and_then_counts_as_told(
    alerting: Alerting, hook: Webhook
) -> None:
    hook.always = TAKE_AND_CLOSE
    for _ in range(6):
        alerting.tick("b")
        alerting.wait(minutes=10)
    assert hook.events == [("started", "b")] * 3
    assert len(set(keys(hook))) == 1
    assert alerting.problem().last_channel == "webhook"
    with alerting.engine.connect() as conn:
        assert alerts.channel_health(conn)["webhook"].failures == 3, "its check stays red"
    hook.always = None
    alerting.wait(hours=4)
    alerting.tick("b")
    assert hook.events[3:] == [("reminder", "b")]


def test_what_was_not_answered_goes_to_the_next_channel_in_the_same_round(alerting: Alerting, hook: Webhook) -> None:
    with webhook(always=TAKE_AND_CLOSE) as slack:
        alerting.use(slack, name="SLACK")
        assert alerting.tick("b").sent == {"webhook": 1}
        alerting.wait(minutes=10)
        alerting.tick("b")
        assert (len(slack.taken), len(hook.taken)) == (1, 1)


def fail_often(alerting: Alerting, channel: str) -> None:
    """Let a channel have failed so often that it is left out for a quarter of an hour."""
    with alerting.engine.begin() as conn:
        for _ in range(6):
            alerts.record_failure(conn, channel, error="answered 503")


def test_what_was_not_answered_is_not_told_while_another_channel_of_its_route_is_left_out(
    alerting: Alerting, hook: Webhook
) -> None:
    with webhook(always=TAKE_AND_CLOSE) as slack:
        alerting.use(slack, name="SLACK")
        fail_often(alerting, "webhook")
        for minutes in (1, 2, 4):
            alerting.tick("b")
            alerting.wait(minutes=minutes)
        assert (len(slack.taken), hook.requests) == (3, 0)
        assert alerting.problem().first_notified_at is None
        alerting.wait(minutes=8)
        alerting.tick("b")
        assert (hook.events, alerting.problem().last_channel) == ([("started", "b")], "webhook")


def test_a_channel_that_is_left_out_for_ever_is_not_waited_for_for_ever(alerting: Alerting, hook: Webhook) -> None:
    with webhook(always=TAKE_AND_CLOSE) as slack:
        alerting.use(slack, name="SLACK")
        for _ in range(8):
            fail_often(alerting, "webhook")
            alerting.tick("b")
            alerting.wait(minutes=15)
        assert (len(slack.taken), hook.requests) == (6, 0)
        assert alerting.problem().last_channel == "slack"
