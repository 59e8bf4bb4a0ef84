"""`loyalty notifications` on an outbox with something in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli import Cli
from tests.mail_server import PASSWORD, USER, MailServer, closed_port, mail_server
from tests.outbox import SENDER, Outbox
from tests.shop import Shop


@pytest.fixture
def cli(database_url: str) -> Cli:
    return Cli(database_url)


@pytest.fixture
def outbox(shop: Shop) -> Outbox:
    return Outbox(shop)


@pytest.fixture
def mta(monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    """A mail server that the environment names."""
    with mail_server() as running:
        monkeypatch.setenv("LOYALTY_MAIL_URL", running.url())
        monkeypatch.setenv("LOYALTY_MAIL_FROM", SENDER)
        yield running


def listed(cli: Cli, *options: str) -> list[int]:
    found = cli.ok("notifications", "list", "--json", *options).document
    return [one["notification_id"] for one in found["mails"]]


def test_an_empty_outbox_is_said_to_be_empty(cli: Cli, outbox: Outbox) -> None:
    assert cli.ok("notifications", "list").out == "No mails.\n"
    assert cli.ok("notifications", "list", "--json").document == {"mails": [], "is_more": False}


def test_the_list_shows_what_is_not_delivered_the_newest_first(cli: Cli, outbox: Outbox, mta: MailServer) -> None:
    sent, parked = outbox.add(), outbox.add("bea")
    outbox.customer("bea", email=None)
    outbox.sent(mta)
    waiting = outbox.add("carl")
    assert listed(cli) == [waiting, parked]
    assert listed(cli, "--status", "sent") == [sent]
    assert listed(cli, "--status", "parked") == [parked]
    found = cli.ok("notifications", "list").out
    assert "the customer has no address" in found
    assert "welcome_bonus" in found
    assert "The newest 1 mails; --limit shows more." in cli.ok("notifications", "list", "--limit", "1").out


def test_the_list_is_narrowed_by_merchant(cli: Cli, shop: Shop, outbox: Outbox) -> None:
    shop.merchant("m2")
    outbox.add()
    other = outbox.add("bob", merchant="m2")
    assert listed(cli, "--merchant", "m2") == [other]
    assert "did you mean 'm1'" in cli.refused(1, "notifications", "list", "--merchant", "m11")


def test_show_says_all_but_the_address(cli: Cli, outbox: Outbox, mta: MailServer) -> None:
    number = outbox.add()
    mta.refuse("data", "451 4.3.0 <ann@example.com> later")
    outbox.sent(mta)
    found = cli.ok("notifications", "show", str(number)).out
    assert f"Mail {number}: loyalty_welcome_bonus, pending" in found
    for line in ("merchant       m1", "customer       ann", "says           points 50", "tries          1"):
        assert f"  {line}\n" in found
    assert "reason         451 4.3.0 <address> later" in found
    document = cli.ok("notifications", "show", str(number), "--merchant", "m1", "--json")
    assert (document.document["payload"], document.document["attempts"]) == ({"points": 50}, 1)
    assert "@" not in found + document.out
    assert "There is no mail 999" in cli.refused(1, "notifications", "show", "999")
    assert "of merchant 'm2'" in cli.refused(1, "notifications", "show", str(number), "--merchant", "m2")


def test_send_sends_what_is_due_and_says_how_much(cli: Cli, outbox: Outbox, mta: MailServer) -> None:
    assert "Nothing was to be sent." in cli.ok("notifications", "send").out
    outbox.add()
    outbox.add("bea")
    outbox.customer("bea", email=None)
    found = cli.ok("notifications", "send").out
    assert f"Sent 1 mail of 2 to localhost:{mta.port}; 'loyalty notifications list' says why not all." in found
    assert mta.recipients == ["ann@example.com"]
    outbox.add("carl")
    document = cli.ok("notifications", "send", "--json").document
    assert (document["merchants"][0]["sent"], document["server_problem"]) == (1, None)


def test_send_stops_after_its_number(cli: Cli, outbox: Outbox, mta: MailServer) -> None:
    outbox.many(5)
    cli.ok("notifications", "send", "--max", "2")
    assert len(mta.mails) == 2


def test_send_without_a_mail_server_says_what_to_set(cli: Cli, outbox: Outbox) -> None:
    outbox.add()
    assert "LOYALTY_MAIL_URL is not set" in cli.refused(1, "notifications", "send")
    assert outbox.states() == {"ann": "pending"}


def test_send_names_a_server_that_cannot_be_used_and_no_password(
    cli: Cli, outbox: Outbox, mta: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox.add()
    monkeypatch.setenv("LOYALTY_MAIL_URL", f"smtp://{USER}:{PASSWORD}@localhost:{closed_port()}")
    found = cli.run("notifications", "send")
    assert found.status == 1
    assert "Error: The mail server localhost:" in found.err
    assert "Nothing was sent." in found.out
    assert PASSWORD not in found.out + found.err
    assert cli.run("notifications", "send", "--json").status == 1


def test_a_mail_that_is_not_taken_is_exit_status_1(cli: Cli, outbox: Outbox, mta: MailServer) -> None:
    outbox.add()
    mta.refuse("data", "451 later")
    assert cli.run("notifications", "send").status == 1


def test_send_to_a_folder_and_to_the_console(
    cli: Cli, outbox: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = outbox.add()
    monkeypatch.setenv("LOYALTY_MAIL_URL", f"folder://{tmp_path}/mails")
    assert f"Sent 1 mail of 1 to {tmp_path}/mails." in cli.ok("notifications", "send").out
    assert (tmp_path / "mails" / f"m1-{number}.eml").exists()
    outbox.add("bea")
    monkeypatch.setenv("LOYALTY_MAIL_URL", "console:")
    assert "leave out --json" in cli.refused(2, "notifications", "send", "--json")
    found = cli.ok("notifications", "send").out
    assert "of m1: " in found
    assert "bea@example.com" not in found


def test_retry_makes_one_or_all_due_again(cli: Cli, shop: Shop, outbox: Outbox, mta: MailServer) -> None:
    shop.merchant("m2")
    first, second = outbox.add(), outbox.add("bob", merchant="m2")
    mta.refuse("data", "554 no")
    assert cli.run("notifications", "send").status == 1
    assert "1 mail due now" in cli.ok("notifications", "retry", str(first)).out
    assert f"Mail {first} of merchant 'm1' is pending" in cli.refused(1, "notifications", "retry", str(first))
    assert cli.ok("notifications", "retry", "--merchant", "m2", "--json").document == {"mails": 1}
    assert "0 mails due now" in cli.ok("notifications", "retry", "--all").out
    del mta.rules["data"]
    cli.ok("notifications", "send")
    assert {outbox.mail(number).status for number in (first, second)} == {"sent"}


@pytest.mark.parametrize("command", [["retry"], ["park", "--reason", "x"]])
@pytest.mark.parametrize("args", [[], ["1", "--all"], ["--merchant", "m1", "--all"]])
def test_it_wants_one_of_number_merchant_and_all(cli: Cli, outbox: Outbox, command: list[str], args: list[str]) -> None:
    assert "Name one of NUMBER, --merchant M and --all." in cli.refused(2, "notifications", *command, *args)


def test_park_needs_a_reason_and_remembers_who(cli: Cli, outbox: Outbox, mta: MailServer) -> None:
    number, failed = outbox.add(), outbox.add("bea")
    assert "Missing option '--reason'" in cli.refused(2, "notifications", "park", str(number))
    assert "1 mail parked: told her" in cli.ok("notifications", "park", str(number), "--reason", "told her").out
    assert (outbox.mail(number).last_error or "").startswith("by hand: told her (cli")
    mta.refuse("data", "554 no")
    assert cli.run("notifications", "send").status == 1
    parked = cli.ok("notifications", "park", "--merchant", "m1", "--reason", "x", "--json")
    assert (parked.document, outbox.mail(failed).status) == ({"mails": 1}, "parked")
    assert "0 mails parked" in cli.ok("notifications", "park", "--all", "--reason", "x").out
