"""The ways out for alerts, on real servers."""

import asyncio
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from loyalty_pipelines.domain.alert_messages import (
    ChannelError,
    Links,
    Message,
    UnansweredError,
    message_about,
    message_of_test,
)
from loyalty_pipelines.domain.alert_settings import alert_settings
from loyalty_pipelines.domain.alerts import Claimed, Event, Problem, Severity
from loyalty_pipelines.resources import alert_channels
from loyalty_pipelines.resources.alert_channels import channels_for
from tests.mail_server import MailServer, closed_port, mail_server
from tests.webhook import CLOSE, DRIP, SLOW, TAKE_AND_CLOSE, TOKEN, Webhook, webhook

NOW = datetime(2026, 11, 20, 7, 0, tzinfo=UTC)
MESSAGE = message_of_test(as_of=NOW, channel="any")


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as running:
        yield running


@pytest.fixture
def mta() -> Iterator[MailServer]:
    with mail_server() as running:
        yield running


def send(name: str, **environment: str) -> str:
    """Send the test message over one channel; return what it said."""
    return channels_for(alert_settings(environment))[name].send(MESSAGE)


def refused(name: str, **environment: str) -> str:
    """Send over a channel that doesn't take it; return its error."""
    with pytest.raises(ChannelError) as caught:
        send(name, **environment)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


def test_slack_gets_a_text_and_nothing_else(hook: Webhook) -> None:
    assert send("slack", LOYALTY_ALERT_SLACK_URL=hook.url) == ""
    assert [list(one) for one in hook.taken] == [["text"]]


def test_a_webhook_gets_the_documented_fields(hook: Webhook) -> None:
    hook.always = 204
    send("webhook", LOYALTY_ALERT_WEBHOOK_URL=hook.url)
    (document,) = hook.taken
    assert set(document) == {"version", "key", "sent_at", "subject", "severity", "text", "alerts"}
    assert (document["version"], document["sent_at"]) == (1, NOW.isoformat())


@pytest.mark.parametrize("status", [500, 429])
def test_what_may_pass_is_tried_once_more_at_once(hook: Webhook, status: int) -> None:
    hook.answers = [status]
    send("webhook", LOYALTY_ALERT_WEBHOOK_URL=hook.url)
    assert (hook.requests, len(hook.taken)) == (2, 1)
    hook.always = status
    assert refused("webhook", LOYALTY_ALERT_WEBHOOK_URL=hook.url) == f"answered {status}"
    assert hook.requests == 4


@pytest.mark.parametrize("status", [302, 400, 404])
def test_what_will_not_pass_is_not_tried_again_and_nobody_is_sent_elsewhere(hook: Webhook, status: int) -> None:
    hook.always = status
    found = refused("webhook", LOYALTY_ALERT_WEBHOOK_URL=hook.url)
    assert found == f"answered {status}: is LOYALTY_ALERT_WEBHOOK_URL right?"
    assert hook.requests == 1


def test_what_may_have_been_taken_is_not_sent_a_second_time(hook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    hook.always = TAKE_AND_CLOSE
    assert "closed the connection" in refused("webhook", LOYALTY_ALERT_WEBHOOK_URL=hook.url)
    hook.always = CLOSE
    assert "closed the connection" in refused("webhook", LOYALTY_ALERT_WEBHOOK_URL=hook.url)
    monkeypatch.setattr(alert_channels, "ANSWER_SECONDS", 0.1)
    hook.always, hook.slow_seconds = SLOW, 0.4
    assert "gave no answer within 0.1 s (ReadTimeout)" in refused("webhook", LOYALTY_ALERT_WEBHOOK_URL=hook.url)
    assert hook.requests == 3


def test_a_server_that_is_not_there_or_speaks_no_tls_is_said_so(hook: Webhook) -> None:
    away = f"http://127.0.0.1:{closed_port()}/{TOKEN}"
    assert "can't be reached (ConnectionError)" in refused("slack", LOYALTY_ALERT_SLACK_URL=away)
    plain = hook.url.replace("http:", "https:")
    assert "its TLS certificate can't be trusted (SSLError)" in refused("slack", LOYALTY_ALERT_SLACK_URL=plain)


def mail_environment(url: str, to: str = "ops@example.com, oncall@example.com") -> dict[str, str]:
    return {
        "LOYALTY_ALERT_EMAIL_TO": to,
        "LOYALTY_MAIL_URL": url,
        "LOYALTY_MAIL_FROM": "Loyalty <loyalty@example.com>",
    }


def test_each_recipient_gets_a_mail_of_their_own_that_is_the_same_when_it_is_repeated(mta: MailServer) -> None:
    for _ in range(2):
        assert send("email", **mail_environment(mta.url())) == ""
    assert mta.recipients == ["ops@example.com", "oncall@example.com"] * 2
    first, _, again, _ = (one.message for one in mta.mails)
    assert first["Message-ID"] == again["Message-ID"]
    assert (first["From"], first["To"]) == ("Loyalty <loyalty@example.com>", "ops@example.com")
    assert first["Subject"] == MESSAGE.subject
    assert mta.mails[0].body("plain") == MESSAGE.text
    assert len({one.message["Message-ID"] for one in mta.mails}) == 2


def test_one_recipient_that_is_refused_keeps_no_other_from_being_told(mta: MailServer) -> None:
    mta.refuse("rcpt", "550 5.1.1 no such user ops@example.com", only="ops@example.com")
    said = send("email", **mail_environment(mta.url()))
    assert mta.recipients == ["oncall@example.com"]
    assert said.startswith("recipient 1 of LOYALTY_ALERT_EMAIL_TO: 550 5.1.1")
    assert "ops@" not in said
    mta.refuse("rcpt", "550 5.1.1 no such user")
    assert "recipient 2 of" in refused_mail(mail_environment(mta.url()))


def test_a_mail_server_that_is_down_is_asked_once_for_all_recipients() -> None:
    found = refused_mail(mail_environment(f"smtp://u:{TOKEN}@localhost:{closed_port()}"))
    assert found.count("can't be reached (Connection refused)") == 1
    assert TOKEN not in found


def refused_mail(environment: dict[str, str]) -> str:
    with pytest.raises(ChannelError) as caught:
        send("email", **environment)
    return str(caught.value)


def test_in_a_folder_each_message_is_a_file_of_its_own(tmp_path: Path) -> None:
    send("email", **mail_environment(f"folder://{tmp_path}"))
    assert len(list(tmp_path.glob("alert-*.eml"))) == 2


# --- what takes long, and what is long ---


def test_a_channel_that_takes_some_seconds_to_answer_is_told(hook: Webhook, mta: MailServer) -> None:
    async def scan(_address: str) -> None:
        await asyncio.sleep(3.2)

    hook.always, hook.slow_seconds = SLOW, 3.2
    mta.rules["data"] = scan
    environment = {"LOYALTY_ALERT_WEBHOOK_URL": hook.url, **mail_environment(mta.url(), to="ops@example.com")}
    with ThreadPoolExecutor() as pool:
        webhook_said, email_said = pool.map(lambda name: send(name, **environment), ("webhook", "email"))
    assert (webhook_said, email_said, len(hook.taken), len(mta.mails)) == ("", "", 1, 1)


def test_a_server_that_answers_a_line_at_a_time_costs_the_time_of_one_message(
    hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_channels, "SEND_SECONDS", 0.3, raising=False)
    hook.always = DRIP
    found = refused("webhook", LOYALTY_ALERT_WEBHOOK_URL=hook.url)
    assert found == "was not done within 0.3 s"
    assert hook.requests == 1


def test_a_name_that_is_not_found_in_time_has_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = socket.getaddrinfo

    def hang(*args: Any, **options: Any) -> Any:
        time.sleep(0.6)
        return found(*args, **options)

    monkeypatch.setattr(alert_channels, "SEND_SECONDS", 0.2, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with pytest.raises(ChannelError, match="was not done within") as caught:
        send("webhook", LOYALTY_ALERT_WEBHOOK_URL=f"http://127.0.0.1:{closed_port()}/")
    assert not isinstance(caught.value, UnansweredError)


def test_recipients_whose_turn_does_not_come_in_time_are_left_out_and_counted(
    mta: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait(_address: str) -> None:
        await asyncio.sleep(0.2)

    monkeypatch.setattr(alert_channels, "SEND_SECONDS", 0.5, raising=False)
    mta.rules["rcpt"] = wait
    to = ", ".join(f"ops{number}@example.com" for number in range(10))
    said = send("email", **mail_environment(mta.url(), to=to))
    assert said.startswith(f"only {len(mta.mails)} of 10 recipients were told within 0.5 s")
    told = len(mta.mails)
    assert 1 <= told < 5
    time.sleep(0.5)
    assert len(mta.mails) == told, "nobody goes on in the background"


def test_a_mail_server_whose_answers_take_too_long_together_is_given_nothing(
    mta: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait(_address: str) -> None:
        await asyncio.sleep(0.3)

    monkeypatch.setattr(alert_channels, "SEND_SECONDS", 0.4)
    mta.rules |= {"mail": wait, "rcpt": wait}
    with pytest.raises(ChannelError, match="was not done within") as caught:
        send("email", **mail_environment(mta.url(), to="ops@example.com"))
    assert not isinstance(caught.value, UnansweredError)
    time.sleep(0.6)
    assert (mta.commands, mta.mails) == (["mail", "rcpt"], [])


def test_a_webhook_whose_name_is_found_too_late_is_given_nothing(
    hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, asked = socket.getaddrinfo, threading.Event()

    def hang(*args: Any, **options: Any) -> Any:
        time.sleep(0.5)
        asked.set()
        return found(*args, **options)

    monkeypatch.setattr(alert_channels, "SEND_SECONDS", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    assert refused("webhook", LOYALTY_ALERT_WEBHOOK_URL=hook.url) == "was not done within 0.2 s"
    assert asked.wait(5)
    time.sleep(0.3)
    assert (hook.requests, hook.taken) == (0, [])


def test_what_left_too_late_is_said_so_whatever_the_library_makes_of_it(
    hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = alert_channels._Progress(ends_at=time.monotonic() + 0.2)
    found = socket.getaddrinfo

    def hang(*args: Any, **options: Any) -> Any:
        time.sleep(0.3)
        return found(*args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with pytest.raises(ChannelError) as caught:
        alert_channels.WebhookChannel(hook.url).send(MESSAGE, late)
    assert (str(caught.value), hook.requests) == ("was not done in time", 0)


def long_message() -> Message:
    """A message about two hundred problems, with much to say of each."""
    claimed = [
        Claimed(
            problem=Problem(
                problem_id=number, name=f"check_{number}", source="check", severity=Severity.P1,
                title=f"check_{number} is red", detail="<3 & more> " * 50, merchants=(), numbers={}, runbook="",
                place="", started_at=NOW,
            ),
            event=Event.STARTED,
            leased_until=NOW,
        )
        for number in range(200)
    ]  # fmt: skip
    return message_about(claimed, links=Links(), as_of=NOW)


@pytest.mark.parametrize("name", ["slack", "webhook"])
def test_a_channel_that_takes_no_long_message_gets_a_short_one(hook: Webhook, name: str) -> None:
    hook.longest = 2000
    way = channels_for(alert_settings({f"LOYALTY_ALERT_{name.upper()}_URL": hook.url}))[name]
    assert way.send(long_message()) == "took only a short form of the message (answered 400)"
    (short,) = hook.taken
    assert short["text"].startswith("200 problems (200 P1): check_0, check_1, ")
    assert "P1 check_17 is red" in short["text"]
    assert short["text"].endswith("more: 'loyalty alerts list' has all.")
    assert len(short["text"]) <= 1900
    hook.longest = 10
    with pytest.raises(ChannelError, match="answered 400, to a short form of the message, too"):
        way.send(long_message())


def test_a_file_of_authorities_that_is_not_there_is_named(hook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/authorities.pem")
    found = refused("slack", LOYALTY_ALERT_SLACK_URL=hook.url.replace("http:", "https:"))
    assert found == "can't be asked: the file that REQUESTS_CA_BUNDLE names can't be read"
