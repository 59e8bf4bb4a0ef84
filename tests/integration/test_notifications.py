"""The outbox: what is sent, what is not, how often, and what a server's answers and failures do to it."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from types import SimpleNamespace

import pytest
from sqlalchemy import Engine, text

from loyalty_pipelines.db import notifications, notifications_run, sources
from loyalty_pipelines.db.notifications_run import LEASE, Pace, is_something_due
from loyalty_pipelines.domain.notifications import (
    REFUSED_IN_A_ROW,
    MailRetries,
    NotificationNotFoundError,
    NotificationStateError,
    OutgoingMail,
    Result,
    Status,
)
from loyalty_pipelines.domain.source_mapping import NoMappingError
from tests.mail_server import DROP, TAKE_AND_DROP, MailServer, closed_port, mail_server
from tests.outbox import Outbox
from tests.shop import Shop


@pytest.fixture
def outbox(shop: Shop) -> Outbox:
    return Outbox(shop)


@pytest.fixture
def mta() -> Iterator[MailServer]:
    with mail_server() as running:
        yield running


class Crash(BaseException):
    """The end of the process."""


# --- sent ---


def test_a_mail_is_sent_to_the_address_that_the_shop_has_now(outbox: Outbox, mta: MailServer) -> None:
    number = outbox.add()
    outbox.customer(email="new@example.com", name="Ann")
    assert outbox.sent(mta) == {"sent": 1}
    (mail,) = mta.mails
    assert (mail.sender, mail.recipient) == ("loyalty@shops.example.com", "new@example.com")
    found = outbox.mail(number)
    assert (found.status, found.attempts, found.sent_as, found.last_error) == ("sent", 1, "en built-in", None)
    assert (found.leased_until, found.settled_at is not None) == (None, True)


def test_running_it_again_sends_nothing_again(outbox: Outbox, mta: MailServer) -> None:
    outbox.add()
    assert outbox.sent(mta) == {"sent": 1}
    assert outbox.sent(mta) == {}
    assert len(mta.mails) == 1


def test_all_mails_of_a_run_go_over_one_connection(outbox: Outbox, mta: MailServer) -> None:
    outbox.many(25)
    assert outbox.sent(mta, page_size=10) == {"sent": 25}
    assert (sorted(mta.recipients), mta.connections) == (sorted(f"c{n}@example.com" for n in range(1, 26)), 1)


def test_the_language_is_the_customers_and_the_override_the_merchants(
    shop: Shop, outbox: Outbox, mta: MailServer
) -> None:
    shop.run(
        "INSERT INTO loyalty.mail_templates (merchant_id, template, locale, subject, text_body, html_body, updated_by) "
        "VALUES ('m1', 'loyalty_welcome_bonus', 'de', '{{ points }} Punkte!', 'Text', '<p>Text</p>', 'test')"
    )
    number = outbox.add()
    outbox.customer(locale="de-LU")
    assert outbox.sent(mta) == {"sent": 1}
    assert mta.mails[0].message["Subject"] == "50 Punkte!"
    assert outbox.mail(number).sent_as == "de merchant"


def test_a_broken_override_is_passed_over_and_reported(shop: Shop, outbox: Outbox, mta: MailServer) -> None:
    shop.run(
        "INSERT INTO loyalty.mail_templates (merchant_id, template, locale, subject, text_body, html_body, updated_by) "
        "VALUES ('m1', 'loyalty_welcome_bonus', 'en', '{{ ''''.__class__ }}', 'x', 'x', 'test')"
    )
    outbox.add()
    report = outbox.send(mta)
    assert report.total("sent") == 1
    assert "class" not in mta.mails[0].message["Subject"]
    assert len(report.template_problems) == 1


# --- not sent ---


def change_view(shop: Shop, old: str, new: str) -> None:
    """Let the shop's customers look otherwise, as with another mapping."""
    definition = shop.value("SELECT pg_get_viewdef('loyalty_source.customers'::regclass)")
    assert old in definition
    shop.run(f"CREATE OR REPLACE VIEW loyalty_source.customers AS {definition.replace(old, new)}")


@pytest.mark.parametrize(
    ("email", "why"),
    [
        (None, "the customer has no address"),
        ("  ", "the customer has no address"),
        ("nobody", "the customer's address is not valid"),
        ("ann@example.com\r\nBcc: eve@example.com", "the customer's address is not valid"),
        ("root@localhost", "the customer's address is not valid"),
        ("root@mailhost", "the customer's address is not valid"),
        ("ann@example.com, eve@example.com", "the customer's address is not valid"),
    ],
)
def test_a_customer_without_a_usable_address_is_parked(
    outbox: Outbox, mta: MailServer, email: str | None, why: str
) -> None:
    number = outbox.add()
    outbox.customer(email=email)
    assert outbox.sent(mta) == {"parked": 1}
    found = outbox.mail(number)
    assert (found.status, found.last_error, found.attempts, mta.commands) == ("parked", why, 0, [])


def test_a_customer_who_is_gone_from_the_shop_is_parked(outbox: Outbox, mta: MailServer) -> None:
    number = outbox.add(is_known=False)
    assert outbox.sent(mta) == {"parked": 1}
    assert outbox.mail(number).last_error == "the shop does not list the customer"


def test_a_customer_who_is_not_active_is_parked(shop: Shop, outbox: Outbox, mta: MailServer) -> None:
    number = outbox.add()
    change_view(shop, "true AS is_active", "false AS is_active")
    assert outbox.sent(mta) == {"parked": 1}
    assert outbox.mail(number).last_error == "the customer is not active"


def test_a_merchant_who_is_gone_from_the_shop_fails_and_can_come_back(
    shop: Shop, outbox: Outbox, mta: MailServer
) -> None:
    number = outbox.add()
    shop.run("DELETE FROM sample_shop.merchants")
    assert outbox.sent(mta) == {"failed": 1}
    assert outbox.mail(number).last_error == "the shop does not list the merchant"
    shop.run("INSERT INTO sample_shop.merchants (id, name, timezone, currency) VALUES ('m1', 'One', 'UTC', 'EUR')")
    with shop.engine.begin() as conn:
        notifications.retry_mail(conn, number)
    assert outbox.sent(mta) == {"sent": 1}


@pytest.mark.parametrize("column", ["expires_at", "warned_for"])
def test_a_warning_of_another_date_than_the_accounts_is_void(
    shop: Shop, outbox: Outbox, mta: MailServer, column: str
) -> None:
    number = outbox.warn()
    shop.run(f"UPDATE loyalty.accounts SET {column} = {column} + interval '1 day'")
    assert outbox.sent(mta) == {"void": 1}
    assert (outbox.mail(number).status, mta.commands) == ("void", [])


def test_a_warning_whose_points_are_gone_is_void(shop: Shop, outbox: Outbox, mta: MailServer) -> None:
    outbox.warn()
    shop.run("UPDATE loyalty.accounts SET expires_at = NULL")
    assert outbox.sent(mta) == {"void": 1}


def test_a_warning_that_is_true_is_sent_with_its_date(outbox: Outbox, mta: MailServer) -> None:
    number = outbox.warn()
    assert outbox.sent(mta) == {"sent": 1}
    gone = datetime.fromisoformat(str(outbox.mail(number).payload["expires_at"]))
    assert f"{gone.day} {gone:%B %Y}" in mta.mails[0].body("plain")


def test_a_warning_whose_date_is_over_waits_for_a_later_one_and_uses_no_try(
    shop: Shop, outbox: Outbox, mta: MailServer
) -> None:
    number = outbox.warn(expires="-1 day")
    assert outbox.sent(mta) == {"put_off": 1}
    found = outbox.mail(number)
    assert (found.status, found.attempts, mta.commands) == ("pending", 0, [])
    assert found.next_attempt_at > datetime.now(UTC) + timedelta(minutes=55)


def test_a_warning_that_has_waited_and_leaves_less_than_the_lead_waits_for_a_later_date(
    shop: Shop, outbox: Outbox, mta: MailServer
) -> None:
    """Everything was down, and the sender is back before the night: the points would go soon after the mail."""
    number = outbox.warn(expires="5 days")
    shop.run("UPDATE loyalty.notifications SET waits_since = now() - interval '27 hours'")
    assert outbox.sent(mta) == {"put_off": 1}
    found = outbox.mail(number)
    assert (found.status, found.attempts, mta.commands) == ("pending", 0, [])
    assert found.last_error == "its date is too near, or over: expiry_warnings gives it a later one"
    shop.run("UPDATE loyalty.notifications SET next_attempt_at = now(), waits_since = now() - interval '25 hours'")
    assert outbox.sent(mta) == {"sent": 1}


@pytest.mark.parametrize("status", ["failed", "parked"])
def test_a_warning_that_is_retried_by_hand_leaves_no_less_than_the_lead_either(
    shop: Shop, outbox: Outbox, mta: MailServer, status: str
) -> None:
    number = outbox.warn(expires="2 days")
    shop.run(
        "UPDATE loyalty.notifications SET status = :status, settled_at = now(), "
        "waits_since = now() - interval '12 days'",
        status=status,
    )
    with shop.engine.begin() as conn:
        notifications.retry_mail(conn, number)
    assert outbox.sent(mta) == {"put_off": 1}


def test_a_warning_of_yesterdays_night_leaves_the_whole_lead(shop: Shop, outbox: Outbox, mta: MailServer) -> None:
    outbox.warn()
    yesterday = "loyalty.local_midnight(now(), 13, 'Europe/Luxembourg')"
    shop.run(f"UPDATE loyalty.accounts SET expires_at = {yesterday}, warned_for = {yesterday}")
    shop.run(
        f"UPDATE loyalty.notifications SET payload = jsonb_build_object('points', 5, 'expires_at', {yesterday}), "
        "waits_since = now() - interval '30 hours'"
    )
    assert outbox.sent(mta) == {"sent": 1}


def test_a_warning_waits_while_its_merchants_programme_is_off(shop: Shop, outbox: Outbox, mta: MailServer) -> None:
    number = outbox.warn()
    shop.program(points_expiration_days=365, is_active=False)
    assert outbox.sent(mta) == {"put_off": 1}
    assert outbox.mail(number).last_error == "nothing expires at the merchant at the moment"
    shop.program(points_expiration_days=365)
    shop.run("UPDATE loyalty.notifications SET next_attempt_at = now()")
    assert outbox.sent(mta) == {"sent": 1}


def test_a_warning_whose_merchants_clock_has_changed_since_it_was_claimed_is_not_void(
    shop: Shop, outbox: Outbox, mta: MailServer
) -> None:
    number = outbox.warn()
    shop.run("UPDATE sample_shop.merchants SET timezone = 'America/Los_Angeles'")
    date = "CAST(CAST(split_part(n.dedupe_key, '/', 3) AS date) AS timestamp) AT TIME ZONE 'America/Los_Angeles'"
    shop.run(f"UPDATE loyalty.accounts SET expires_at = {date}, warned_for = {date} FROM loyalty.notifications AS n")
    assert outbox.sent(mta) == {"put_off": 1}
    assert outbox.mail(number).last_error == "its date was written anew just now"


@pytest.mark.parametrize("template", ["loyalty_welcome_bonus", "loyalty_enrollment", "loyalty_reward_ready"])
def test_a_mail_of_an_account_that_was_merged_away_is_void(
    shop: Shop, outbox: Outbox, mta: MailServer, template: str
) -> None:
    outbox.add(template=template, points=1, stamps=1)
    shop.run("UPDATE loyalty.accounts SET is_active = false")
    assert outbox.sent(mta) == {"void": 1}


def test_a_mail_with_a_payload_that_its_template_cannot_use_fails_alone(outbox: Outbox, mta: MailServer) -> None:
    bad = outbox.add("bea", points="many for bea@example.com")
    outbox.add()
    assert outbox.sent(mta) == {"sent": 1, "failed": 1}
    assert "expected a whole number" in (outbox.mail(bad).last_error or "")
    assert "bea@" not in (outbox.mail(bad).last_error or "")


def test_nothing_is_sent_before_its_time(shop: Shop, outbox: Outbox, mta: MailServer) -> None:
    outbox.add()
    shop.run("UPDATE loyalty.notifications SET next_attempt_at = now() + interval '1 minute'")
    assert not is_something_due(shop.engine)
    assert outbox.sent(mta) == {}
    outbox.wait()
    assert is_something_due(shop.engine)


def test_what_is_not_due_hides_nothing_that_is(shop: Shop, outbox: Outbox, mta: MailServer) -> None:
    for merchant in ("m0", "m10", "m2"):
        shop.merchant(merchant)
        outbox.add(merchant, merchant=merchant)
    outbox.add()
    shop.run(
        "UPDATE loyalty.notifications SET next_attempt_at = now() + interval '1 minute' "
        "WHERE merchant_id IN ('m0', 'm1')"
    )
    outbox.add("bea")
    assert outbox.sent(mta) == {"sent": 3}
    assert sorted(mta.recipients) == ["bea@example.com", "m10@example.com", "m2@example.com"]


def test_behind_a_withdrawn_mapping_nothing_is_sent_or_parked(shop: Shop, outbox: Outbox, mta: MailServer) -> None:
    outbox.add()
    with shop.engine.begin() as conn:
        sources.withdraw(conn)
    with pytest.raises(NoMappingError):
        outbox.send(mta)
    with pytest.raises(NoMappingError):
        is_something_due(shop.engine)
    assert outbox.states() == {"ann": "pending"}


# --- what a server says ---


def test_a_mail_that_is_put_off_is_tried_three_times_more_and_then_fails(outbox: Outbox, mta: MailServer) -> None:
    number = outbox.add()
    mta.refuse("data", "451 4.3.0 try ann@example.com again later")
    for tries, wait in ((1, 60), (2, 120), (3, 240)):
        assert outbox.sent(mta) == {"put_off": 1}
        found = outbox.mail(number)
        assert (found.status, found.attempts, found.leased_until) == ("pending", tries, None)
        left = (found.next_attempt_at - datetime.now(UTC)).total_seconds()
        assert wait - 10 <= left <= wait * 1.1
        outbox.wait()
    assert outbox.sent(mta) == {"failed": 1}
    found = outbox.mail(number)
    assert (found.attempts, found.last_error) == (4, "451 4.3.0 try <address> again later")
    outbox.wait()
    assert outbox.sent(mta) == {}


def test_a_mail_that_is_put_off_once_arrives_once(outbox: Outbox, mta: MailServer) -> None:
    outbox.add()
    mta.refuse("rcpt", "450 4.2.1 slow down", times=1)
    assert outbox.sent(mta) == {"put_off": 1}
    outbox.wait()
    assert outbox.sent(mta) == {"sent": 1}
    assert mta.recipients == ["ann@example.com"]


def test_a_mail_that_is_refused_for_good_fails_at_once(outbox: Outbox, mta: MailServer) -> None:
    number = outbox.add()
    mta.refuse("data", "554 5.6.0 no thanks")
    assert outbox.sent(mta) == {"failed": 1}
    assert (outbox.mail(number).attempts, outbox.mail(number).last_error) == (1, "554 5.6.0 no thanks")


def test_of_ten_recipients_one_is_refused_and_the_nine_others_get_their_mail(outbox: Outbox, mta: MailServer) -> None:
    outbox.many(10)
    mta.refuse("rcpt", "550 5.1.1 <c4@example.com>: c4 is unknown", only="c4@example.com")
    assert outbox.sent(mta) == {"sent": 9, "parked": 1}
    assert sorted(mta.recipients) == sorted(f"c{n}@example.com" for n in range(1, 11) if n != 4)
    assert outbox.states()["c4"] == "parked"
    assert outbox.mail(4).last_error == "550 5.1.1 <address> <address> is unknown"
    assert mta.connections == 1


@pytest.mark.parametrize(
    "answer",
    ["554 5.7.1 <ann@example.com>: Relay access denied", "550 relay not permitted", "550 5.4.5 Daily limit exceeded"],
)
def test_a_recipient_whom_a_rule_of_the_server_refuses_has_failed_and_is_not_given_up(
    outbox: Outbox, mta: MailServer, answer: str
) -> None:
    outbox.add()
    mta.refuse("rcpt", answer)
    assert outbox.sent(mta) == {"failed": 1}


@pytest.mark.parametrize("what", [DROP, "421 4.3.2 closing"])
def test_a_server_that_closes_the_connection_between_mails_is_asked_again(
    outbox: Outbox, mta: MailServer, what: str
) -> None:
    outbox.many(3)
    seen: list[str] = []

    def closes_before_the_second(address: str) -> str | None:
        seen.append(address)
        return what if len(seen) == 2 else None

    mta.rules["mail"] = closes_before_the_second
    assert outbox.sent(mta) == {"sent": 3}
    assert (len(mta.mails), mta.connections) == (3, 2)
    assert {outbox.mail(n).attempts for n in (1, 2, 3)} == {1}


@pytest.mark.parametrize("stage", ["rcpt", "data"])
def test_a_connection_that_is_dropped_within_a_mail_puts_off_that_mail_alone(
    outbox: Outbox, mta: MailServer, stage: str
) -> None:
    outbox.many(3)
    mta.refuse(stage, DROP, only="c2@example.com", times=1)
    assert outbox.sent(mta) == {"sent": 2, "put_off": 1}
    assert outbox.mail(2).last_error == "the mail server gave no answer (SMTPServerDisconnected)"
    outbox.wait()
    assert outbox.sent(mta) == {"sent": 1}
    assert sorted(mta.recipients) == ["c1@example.com", "c2@example.com", "c3@example.com"]


def test_a_mail_that_was_taken_without_an_answer_comes_twice_with_the_same_message_id(
    outbox: Outbox, mta: MailServer
) -> None:
    outbox.add()
    mta.refuse("data", TAKE_AND_DROP, times=1)
    assert outbox.sent(mta) == {"put_off": 1}
    outbox.wait()
    assert outbox.sent(mta) == {"sent": 1}
    first, second = mta.mails
    assert first.message["Message-ID"] == second.message["Message-ID"]


def test_a_421_within_a_mail_puts_it_off_and_the_next_gets_a_new_connection(outbox: Outbox, mta: MailServer) -> None:
    outbox.many(2)
    mta.refuse("rcpt", "421 4.7.0 too much", only="c1@example.com")
    assert outbox.sent(mta) == {"sent": 1, "put_off": 1}
    assert mta.connections == 2


def test_a_slow_server_times_out_and_meanwhile_no_row_is_locked_and_no_transaction_is_open(
    shop: Shop, outbox: Outbox, mta: MailServer
) -> None:
    number = outbox.add()
    asked, answer = threading.Event(), threading.Event()

    async def tarpit(_address: str) -> str:
        import asyncio

        asked.set()
        await asyncio.to_thread(answer.wait, 60)
        return "250 at last"

    mta.rules["data"] = tarpit
    reports = []
    sender = threading.Thread(target=lambda: reports.append(outbox.send(mta, timeout=3)))
    sender.start()
    assert asked.wait(30)
    assert (
        shop.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND xact_start IS NOT NULL"
        )
        == 0
    )
    shop.run("SELECT 1 FROM loyalty.notifications FOR UPDATE NOWAIT")
    shop.run("SELECT 1 FROM loyalty.accounts FOR UPDATE NOWAIT")
    sender.join(60)
    answer.set()
    assert [report.total("put_off") for report in reports] == [1]
    assert outbox.mail(number).last_error == "the mail server gave no answer (SMTPServerDisconnected)"


# --- not the mails' fault ---


def assert_nothing_was_used_up(outbox: Outbox) -> None:
    """The mails wait as before: no try is gone, no lease is left."""
    rows = outbox.shop.rows(
        "SELECT status, attempts, leased_until, next_attempt_at <= now() FROM loyalty.notifications"
    )
    assert {tuple(row) for row in rows} == {("pending", 0, None, True)}


def test_a_server_that_refuses_the_connection_uses_up_no_try(outbox: Outbox) -> None:
    outbox.many(3)
    port = closed_port()
    report = outbox.send(f"smtp://ann:s3cret-word@localhost:{port}")
    assert report.server_problem == (
        f"The mail server localhost:{port} can't be reached (Connection refused): is it running, are host and port in "
        "LOYALTY_MAIL_URL right? The mails wait."
    )
    assert report.merchants == {}
    assert_nothing_was_used_up(outbox)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("550 5.7.1 ann@example.com may not send as this", "550 5.7.1 <address> may not send as this"),
        ("451 4.3.2 not now", "451 4.3.2 not now"),
    ],
)
def test_a_sender_who_is_refused_uses_up_no_try(outbox: Outbox, mta: MailServer, answer: str, said: str) -> None:
    outbox.many(3)
    mta.refuse("mail", answer)
    assert said in (outbox.send(mta).server_problem or "")
    assert_nothing_was_used_up(outbox)


@pytest.mark.parametrize("answer", ["530 5.7.0 log in first", "550 5.1.8 domain of sender not found"])
def test_what_is_said_at_the_recipient_and_is_about_the_sender_uses_up_no_try(
    outbox: Outbox, mta: MailServer, answer: str
) -> None:
    outbox.many(3)
    mta.refuse("rcpt", answer)
    assert answer in (outbox.send(mta).server_problem or "")
    assert_nothing_was_used_up(outbox)


def test_a_server_that_goes_away_half_way_leaves_the_rest_waiting(outbox: Outbox, mta: MailServer) -> None:
    outbox.many(5)
    seen: list[str] = []

    def goes_away(address: str) -> str | None:
        seen.append(address)
        return DROP if len(seen) > 2 else None

    mta.rules["mail"] = goes_away
    report = outbox.send(mta)
    assert (report.total("sent"), report.total("handled")) == (2, 2)
    assert "closes the connection before any mail" in (report.server_problem or "")
    assert outbox.leased() == 0
    assert sorted(outbox.states().values()) == ["pending", "pending", "pending", "sent", "sent"]
    assert is_something_due(outbox.shop.engine)


@pytest.mark.parametrize(
    ("stage", "answer"), [("data", DROP), ("data", "451 later"), ("rcpt", "550 relay not permitted")]
)
def test_where_nothing_is_taken_ten_refusals_are_the_servers_matter_and_the_others_wait(
    outbox: Outbox, mta: MailServer, stage: str, answer: str
) -> None:
    outbox.many(25)
    mta.refuse(stage, answer)
    report = outbox.send(mta)
    assert report.total("handled") == REFUSED_IN_A_ROW
    assert "took none of 10 mails in a row, the last because: " in (report.server_problem or "")
    assert report.failures == {}
    assert outbox.shop.value("SELECT count(*) FROM loyalty.notifications WHERE attempts = 0") == 15
    assert outbox.leased() == 0


@pytest.mark.parametrize(
    ("stage", "answer", "status"), [("rcpt", "550 unknown", "parked"), ("data", "554 5.7.1 spam", "failed")]
)
def test_ten_refusals_in_a_row_set_their_merchant_aside_and_stop_no_other(
    shop: Shop, outbox: Outbox, mta: MailServer, stage: str, answer: str, status: str
) -> None:
    outbox.many(60)
    shop.merchant("m2")
    outbox.add("bob", merchant="m2")
    mta.rules[stage] = lambda address: answer if address.startswith("c") else None
    report = outbox.send(mta)
    assert (report.server_problem, mta.recipients) == (None, ["bob@example.com"])
    assert list(report.failures) == ["m1"]
    assert f"took none of 10 mails of this merchant in a row, the last because: {answer}. " in report.failures["m1"]
    assert "'loyalty notifications retry --merchant m1'" in report.failures["m1"]
    assert outbox.leased() == 0
    states = list(outbox.states().values())
    assert (states.count(status), states.count("pending")) == (10, 50)


def test_dead_addresses_are_parked_in_one_run_and_are_nobodys_matter_but_theirs(
    shop: Shop, outbox: Outbox, mta: MailServer
) -> None:
    outbox.many(40)
    shop.merchant("m2")
    outbox.add("bob", merchant="m2")
    mta.rules["rcpt"] = lambda address: "550 5.1.1 User unknown" if address.startswith("c") else None
    assert outbox.sent(mta) == {"sent": 1, "parked": 40}


def test_addresses_that_only_other_servers_take_are_nobodys_matter_but_theirs(outbox: Outbox) -> None:
    outbox.many(15)
    outbox.shop.run("UPDATE sample_shop.customers SET email = 'ö' || email")
    outbox.add("zoe")
    with mail_server(enable_SMTPUTF8=False) as mta:
        assert outbox.sent(mta) == {"sent": 1, "parked": 15}


def test_dead_addresses_between_refusals_do_not_end_their_row(outbox: Outbox, mta: MailServer) -> None:
    outbox.many(40)
    seen: list[str] = []

    def every_third_is_dead(address: str) -> str | None:
        seen.append(address)
        return "550 5.1.1 unknown" if len(seen) % 3 == 0 else "451 later"

    mta.rules["rcpt"] = every_third_is_dead
    report = outbox.send(mta)
    assert (report.total("put_off"), report.total("parked")) == (10, 4)
    assert "took none of 10 mails in a row" in (report.server_problem or "")


def merchants_with_mails(shop: Shop, outbox: Outbox, number: int, *, mails: int = 1) -> None:
    """Let merchants a01, a02 ... have mails to customers of these names."""
    for merchant in (f"a{n:02}" for n in range(1, number + 1)):
        shop.merchant(merchant)
        for mail in range(mails):
            outbox.add(f"{merchant}-{mail}", merchant=merchant)


@pytest.mark.parametrize(("mails", "used"), [(1, 10), (3, 30), (12, 100)])
def test_ten_merchants_in_a_row_of_whom_nothing_is_taken_are_the_servers_matter(
    shop: Shop, outbox: Outbox, mta: MailServer, mails: int, used: int
) -> None:
    merchants_with_mails(shop, outbox, 13, mails=mails)
    mta.refuse("data", "451 4.3.0 <ann@example.com> later")
    report = outbox.send(mta)
    assert f"took none of {used} mails in a row, of 10 merchants, the last because: 451 4.3.0 <address> later" in (
        report.server_problem or ""
    )
    assert report.failures == {}
    assert shop.value("SELECT count(*) FROM loyalty.notifications WHERE attempts = 0") == 13 * mails - used
    assert outbox.leased() == 0


def test_a_mail_that_is_taken_between_them_shows_that_it_is_not_the_server(
    shop: Shop, outbox: Outbox, mta: MailServer
) -> None:
    merchants_with_mails(shop, outbox, 14)
    turns = count(1)
    mta.rules["data"] = lambda _: None if next(turns) == 8 else "554 5.7.1 spam"
    assert outbox.sent(mta) == {"sent": 1, "failed": 13}


def test_merchants_of_whom_nothing_is_taken_do_not_keep_the_same_ones_waiting_for_ever(
    shop: Shop, outbox: Outbox, mta: MailServer
) -> None:
    """Each run has another order: 40 of them would all end before the good one's turn once in 10 ** 11 times."""
    merchants_with_mails(shop, outbox, 20)
    good = outbox.add("good", merchant="m1")
    mta.rules["data"] = lambda address: None if address.startswith("good") else "451 later"
    for _ in range(40):
        outbox.send(mta, max_retries=100)
        if outbox.mail(good).status == "sent":
            return
        outbox.wait()
    pytest.fail("the good mail was never sent")


def test_few_merchants_of_whom_nothing_is_taken_are_the_servers_matter_too(
    shop: Shop, outbox: Outbox, mta: MailServer
) -> None:
    merchants_with_mails(shop, outbox, 3, mails=12)
    mta.refuse("data", "451 later")
    report = outbox.send(mta)
    assert "took none of 30 mails in a row, of 3 merchants" in (report.server_problem or "")
    assert (report.failures, report.total("put_off")) == ({}, 30)


def test_a_merchant_is_set_aside_over_many_short_turns_too(shop: Shop, outbox: Outbox, mta: MailServer) -> None:
    outbox.many(30)
    merchants_with_mails(shop, outbox, 1, mails=40)
    mta.rules["data"] = lambda address: "451 later" if address.startswith("c") else None
    report = outbox.send(mta, page_size=4)
    assert (report.total("sent"), report.total("put_off")) == (40, 10)
    assert (report.server_problem, list(report.failures)) == (None, ["m1"])


def test_mails_that_the_server_takes_in_between_are_no_row(outbox: Outbox, mta: MailServer) -> None:
    outbox.many(24)
    seen: list[str] = []

    def every_other(address: str) -> str | None:
        seen.append(address)
        return "554 5.7.1 spam" if len(seen) % 2 else None

    mta.rules["data"] = every_other
    assert outbox.sent(mta) == {"sent": 12, "failed": 12}


# --- turns, limits, leases ---


def test_merchants_take_turns_so_that_a_large_one_keeps_nobody_waiting(
    shop: Shop, outbox: Outbox, mta: MailServer
) -> None:
    outbox.many(30)
    shop.merchant("m2")
    outbox.add("zoe", merchant="m2")
    assert outbox.sent(mta, page_size=10) == {"sent": 31}
    assert mta.recipients.index("zoe@example.com") in (0, 10)


def test_a_run_waits_before_each_mail_that_it_hands_over_and_for_no_other(
    outbox: Outbox, mta: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox.many(4)
    outbox.add("bea")
    outbox.customer("bea", email=None)
    waits: list[float] = []
    monkeypatch.setattr(
        notifications_run, "Pace", lambda per_minute: Pace(per_minute, clock=lambda: 0.0, sleep=waits.append)
    )
    assert outbox.sent(mta, per_minute=60) == {"sent": 4, "parked": 1}
    assert waits == [1.0, 2.0, 3.0], "by a clock that stands still"


def test_a_run_ends_after_its_number_of_mails_and_gives_the_rest_back(outbox: Outbox, mta: MailServer) -> None:
    outbox.many(10)
    assert outbox.sent(mta, max_mails=4, page_size=3) == {"sent": 4}
    assert outbox.leased() == 0
    assert outbox.sent(mta) == {"sent": 6}
    assert len(set(mta.recipients)) == 10


def test_a_run_ends_after_its_time_and_gives_the_rest_back(outbox: Outbox, mta: MailServer) -> None:
    outbox.many(10)
    assert outbox.sent(mta, max_seconds=0) == {}
    assert (outbox.leased(), mta.mails) == (0, [])


def test_a_run_whose_time_is_over_ends_within_a_page(
    outbox: Outbox, mta: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox.many(10)
    now = [0.0]
    monkeypatch.setattr(notifications_run, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def takes_a_minute(_address: str) -> None:
        now[0] += 60

    mta.rules["data"] = takes_a_minute
    assert outbox.sent(mta, max_seconds=90) == {"sent": 2}
    assert outbox.leased() == 0


def test_mails_whose_lease_would_run_out_before_their_turn_are_given_back(
    shop: Shop, outbox: Outbox, mta: MailServer
) -> None:
    outbox.many(10)
    # A third of it is over when the first mail is looked at.
    outbox.send(mta, lease=timedelta(microseconds=2), max_mails=20, max_seconds=1)
    assert (outbox.leased(), mta.mails) == (0, [])
    assert shop.value("SELECT count(*) FROM loyalty.notifications WHERE next_attempt_at <= now()") == 10


def test_a_page_uses_a_third_of_its_lease_so_that_the_longest_mail_fits_in_the_rest(
    outbox: Outbox, mta: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox.many(10)
    now = [0.0]
    monkeypatch.setattr(notifications_run, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def takes_four_minutes(_address: str) -> None:
        now[0] += 240

    mta.rules["data"] = takes_four_minutes
    # The second begins at four minutes of the five.
    assert outbox.sent(mta, max_seconds=100_000, page_size=20) == {"sent": 2}
    longest_mail = 12 * 30 + 60 + 30
    assert LEASE.total_seconds() * (1 - notifications_run.USABLE_PART) > longest_mail


def test_a_mail_that_is_given_back_is_due_when_it_was_due(shop: Shop, outbox: Outbox) -> None:
    outbox.add()
    shop.run("UPDATE loyalty.notifications SET next_attempt_at = '2020-01-01T00:00:00Z'")
    outbox.send(f"smtp://localhost:{closed_port()}")
    assert outbox.mail(1).next_attempt_at == datetime(2020, 1, 1, tzinfo=UTC)


def test_a_leased_mail_is_nobody_elses_until_the_lease_ends(shop: Shop, outbox: Outbox, mta: MailServer) -> None:
    outbox.add()
    with shop.engine.begin() as conn:
        (mine,) = notifications.claim_page(conn, "m1", page_size=5, lease=LEASE)
    assert outbox.sent(mta) == {}
    assert not is_something_due(shop.engine)
    outbox.wait()
    assert outbox.sent(mta) == {"sent": 1}
    # What the first one has to say of it comes too late.
    with shop.engine.begin() as conn:
        notifications.mark(conn, mine, Result(status=Status.FAILED, is_tried=True), retries=MailRetries())
        notifications.give_back(conn, [mine])
    assert (outbox.mail(mine.notification_id).status, outbox.mail(mine.notification_id).attempts) == ("sent", 1)


@pytest.mark.parametrize("change", ["leased_until = leased_until + interval '1 second'", "dedupe_key = 'another'"])
def test_a_mail_that_changed_hands_between_claim_and_look_up_is_left_alone(
    shop: Shop, outbox: Outbox, change: str
) -> None:
    outbox.add()
    with shop.engine.begin() as conn:
        page = notifications.claim_page(conn, "m1", page_size=5, lease=LEASE)
    shop.run(f"UPDATE loyalty.notifications SET {change}")
    with shop.engine.connect() as conn:
        assert notifications.addressees(conn, page) == {}


def test_a_sender_who_was_too_slow_takes_nothing_from_the_next_one(shop: Shop, outbox: Outbox) -> None:
    number = outbox.add()
    leases = []
    for _ in range(2):
        outbox.wait()
        with shop.engine.begin() as conn:
            leases += notifications.claim_page(conn, "m1", page_size=5, lease=LEASE)
    before = outbox.mail(number)
    with shop.engine.begin() as conn:
        notifications.mark(conn, leases[0], Result(status=Status.PENDING, is_tried=True), retries=MailRetries())
        notifications.give_back(conn, leases[:1])
    assert outbox.mail(number) == before


def test_sessions_of_the_pool_flush_their_commits_as_before(shop: Shop, outbox: Outbox, mta: MailServer) -> None:
    outbox.add()
    outbox.sent(mta)
    # As many as the pool has.
    sessions = [shop.engine.connect() for _ in range(4)]
    sources_of = [
        one.execute(text("SELECT source FROM pg_settings WHERE name = 'synchronous_commit'")).scalar_one()
        for one in sessions
    ]
    for one in sessions:
        one.close()
    assert "session" not in sources_of


def test_a_warning_that_got_a_later_date_while_it_was_sent_stays_to_be_sent(
    shop: Shop, outbox: Outbox, mta: MailServer
) -> None:
    number = outbox.warn()

    def renewed(_address: str) -> None:
        shop.run(
            "UPDATE loyalty.notifications SET dedupe_key = dedupe_key || '+', payload = payload || '{\"points\": 9}'"
        )

    mta.rules["data"] = renewed
    outbox.send(mta)
    del mta.rules["data"]
    assert outbox.mail(number).status == "pending"
    outbox.wait()
    assert outbox.sent(mta) == {"sent": 1}
    first, second = mta.mails
    assert first.message["Message-ID"] != second.message["Message-ID"], "another date is another mail"


# --- at once, and killed ---


def test_two_senders_at_once_send_nothing_twice(outbox: Outbox, mta: MailServer) -> None:
    outbox.many(120)
    reports = []
    threads = [threading.Thread(target=lambda: reports.append(outbox.send(mta, page_size=7))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sum(report.total("sent") for report in reports) == 120
    assert len(mta.recipients) == len(set(mta.recipients)) == 120


def test_a_sender_passes_by_what_another_is_claiming(shop: Shop, outbox: Outbox) -> None:
    outbox.many(10)
    with shop.engine.begin() as one, shop.engine.begin() as other:
        other.execute(text("SET LOCAL lock_timeout = '5s'"))
        pages = [notifications.claim_page(conn, "m1", page_size=5, lease=LEASE) for conn in (one, other)]
    numbers = [mail.notification_id for page in pages for mail in page]
    assert sorted(numbers) == list(range(1, 11))


def test_a_crash_after_the_server_took_a_mail_costs_one_duplicate_with_the_same_message_id(
    outbox: Outbox, mta: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox.many(10)
    real = notifications.mark
    marked: list[int] = []

    def crash_before_the_fourth(conn, mail, result, *, retries) -> None:
        if len(marked) == 3:
            raise Crash
        real(conn, mail, result, retries=retries)
        marked.append(mail.notification_id)

    def nothing(*_args) -> None:
        """A process that is killed gives nothing back."""

    with monkeypatch.context() as patched:
        patched.setattr(notifications, "mark", crash_before_the_fourth)
        patched.setattr(notifications, "give_back", nothing)
        with pytest.raises(Crash):
            outbox.send(mta)
    assert len(mta.mails) == 4
    assert outbox.sent(mta) == {}, "until the lease ends"
    outbox.wait()
    assert outbox.sent(mta) == {"sent": 7}
    ids = [mail.message["Message-ID"] for mail in mta.mails]
    assert (len(ids), len(set(ids)), ids.count(ids[3])) == (11, 10, 2)


def test_an_interrupted_run_gives_back_what_it_did_not_come_to(
    outbox: Outbox, mta: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox.many(10)

    class Interrupting:
        """Is interrupted while it sends the third mail."""

        count = 0

        def send(self, _mail: OutgoingMail) -> None:
            self.count += 1
            if self.count == 3:
                raise KeyboardInterrupt

        def close(self) -> None:
            """Nothing is open."""

    monkeypatch.setattr("tests.outbox.transport_for", lambda *_args, **_more: Interrupting())
    with pytest.raises(KeyboardInterrupt):
        outbox.send(mta)
    assert outbox.leased() == 1, "the third may be on its way: nobody tries it before its lease ends"
    monkeypatch.undo()
    assert outbox.sent(mta) == {"sent": 7}


def test_a_lost_database_after_the_server_took_a_mail_sends_it_no_second_time(
    shop: Shop, outbox: Outbox, mta: MailServer
) -> None:
    outbox.many(3)

    def kill_all_sessions(_address: str) -> None:
        with shop.engine.connect() as conn:
            conn.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )

    mta.rules["data"] = kill_all_sessions
    assert outbox.sent(mta) == {"sent": 3}
    assert len(mta.mails) == 3


def test_one_merchants_broken_view_keeps_no_other_waiting(shop: Shop, outbox: Outbox, mta: MailServer) -> None:
    shop.merchant("m2")
    outbox.add()
    outbox.add("bob", merchant="m2")
    change_view(shop, "true AS is_active", "merchant_id <> 'm1' OR 1 / (length(id) - 3) > 0 AS is_active")
    report = outbox.send(mta)
    assert (report.failures, report.total("sent")) == ({"m1": "division by zero"}, 1)
    assert (outbox.states(), outbox.leased()) == ({"ann": "pending"}, 0)


def test_each_mail_is_marked_before_the_next_one_leaves(shop: Shop, outbox: Outbox, mta: MailServer) -> None:
    outbox.many(3)
    sent: list[int] = []

    def count_sent(_address: str) -> None:
        sent.append(shop.value("SELECT count(*) FROM loyalty.notifications WHERE status = 'sent'"))

    mta.rules["mail"] = count_sent
    outbox.sent(mta)
    assert sent == [0, 1, 2]


# --- by hand ---


def test_retrying_gives_a_failed_and_a_parked_mail_all_their_tries_again(
    shop: Shop, outbox: Outbox, mta: MailServer
) -> None:
    shop.merchant("m2")
    failed, parked = outbox.add(), outbox.add("bea", merchant="m2")
    outbox.customer("bea", merchant="m2", email=None)
    mta.refuse("data", "451 later")
    outbox.sent(mta, max_retries=0)
    assert (outbox.mail(failed).status, outbox.mail(parked).status) == ("failed", "parked")
    with shop.engine.begin() as conn:
        assert notifications.retry(conn, merchant_id="m2") == 1
        assert notifications.retry(conn) == 1
        assert notifications.retry(conn) == 0
    del mta.rules["data"]
    outbox.customer("bea", merchant="m2")
    assert (outbox.mail(failed).attempts, outbox.sent(mta)) == (0, {"sent": 2})


def test_a_mail_that_is_retried_has_waited_since_then(shop: Shop, outbox: Outbox, mta: MailServer) -> None:
    outbox.add()
    outbox.sent(mta)
    shop.run(
        "UPDATE loyalty.notifications SET status = 'parked', created_at = now() - interval '60 days', "
        "waits_since = now() - interval '60 days'"
    )
    with shop.engine.begin() as conn:
        assert notifications.retry(conn) == 1
    with shop.engine.connect() as conn:
        (found,) = notifications.undelivered(conn)
    assert found.oldest_seconds < 60


def test_a_parked_warning_whose_date_is_over_is_not_tried_again(shop: Shop, outbox: Outbox, mta: MailServer) -> None:
    number = outbox.warn()
    outbox.customer(email=None)
    assert outbox.sent(mta) == {"parked": 1}
    shop.run('UPDATE loyalty.notifications SET payload = payload || \'{"expires_at": "2020-01-01T00:00:00+00:00"}\'')
    with shop.engine.begin() as conn:
        assert notifications.retry(conn) == 0
        with pytest.raises(NotificationStateError, match="no warning whose date is over"):
            notifications.retry_mail(conn, number)
    # One that failed held its points back: the night's warnings give it a later date.
    shop.run("UPDATE loyalty.notifications SET status = 'failed'")
    with shop.engine.begin() as conn:
        assert notifications.retry(conn) == 1


def test_giving_up_on_a_mail_parks_it_unless_it_is_being_sent(shop: Shop, outbox: Outbox) -> None:
    number = outbox.add()
    with shop.engine.begin() as conn:
        notifications.claim_page(conn, "m1", page_size=5, lease=LEASE)
        with pytest.raises(NotificationStateError, match="nobody sends just now"):
            notifications.park_mail(conn, number, reason="x")
    shop.run("UPDATE loyalty.notifications SET leased_until = now() - interval '1 second'")
    with shop.engine.begin() as conn:
        notifications.park_mail(conn, number, reason="talked to her")
        with pytest.raises(NotificationStateError, match="is parked"):
            notifications.park_mail(conn, number, reason="again")
    assert (outbox.mail(number).status, outbox.mail(number).last_error) == ("parked", "by hand: talked to her")


def test_giving_up_on_all_gives_up_only_on_what_failed(shop: Shop, outbox: Outbox, mta: MailServer) -> None:
    outbox.add()
    mta.refuse("data", "554 no")
    outbox.sent(mta)
    outbox.add("bea")
    with shop.engine.begin() as conn:
        assert notifications.park(conn, reason="no") == 1
    assert outbox.states() == {"ann": "parked", "bea": "pending"}


def test_a_number_that_is_no_mail_is_said_to_be_none(shop: Shop, outbox: Outbox) -> None:
    number = outbox.add()
    with shop.engine.connect() as conn:
        with pytest.raises(NotificationNotFoundError, match="There is no mail 99"):
            notifications.find_mail(conn, 99)
        with pytest.raises(NotificationNotFoundError, match="of merchant 'm2'"):
            notifications.find_mail(conn, number, merchant_id="m2")


# --- indexes ---


def plan_of(engine: Engine, statement, values: dict[str, object]) -> str:
    with engine.connect() as conn:
        conn.execute(text("SET enable_seqscan = off"))
        return "\n".join(conn.execute(text(f"EXPLAIN {statement}"), values).scalars())


def test_claiming_reads_the_index_of_what_is_due_in_its_order(shop: Shop, outbox: Outbox) -> None:
    outbox.many(2_000)
    shop.run("ANALYZE loyalty.notifications")
    plan = plan_of(
        shop.engine, notifications.CLAIM_PAGE, {"merchant_id": "m1", "page_size": 10, "lease": timedelta(minutes=1)}
    )
    assert "notifications_due" in plan
    assert "Sort" not in plan
    assert "notifications_due" in plan_of(shop.engine, notifications.DUE_MERCHANTS, {})
