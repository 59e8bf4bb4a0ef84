"""What a mail looks like, and what a server's answer means for it."""

from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loyalty_pipelines.db.notifications_run import Pace
from loyalty_pipelines.domain.mail_settings import MailSettings, Transport
from loyalty_pipelines.domain.mails import Mail
from loyalty_pipelines.domain.notifications import (
    ClaimedMail,
    Mailbox,
    OutgoingMail,
    SettledMails,
    Stage,
    Status,
    answer,
    compose,
    is_recipients_matter,
    mailbox,
    message_id,
    status_after,
    without_addresses,
)

NOW = datetime(2026, 11, 20, 7, 0, tzinfo=UTC)
SETTINGS = MailSettings(transport=Transport.SMTP, sender="loyalty@shops.example.com", sender_name="Shops", host="h")
MAX_LINE = 998


def claimed(number: int = 7, *, merchant: str = "m1", key: str = "welcome_bonus/1") -> ClaimedMail:
    return ClaimedMail(
        merchant_id=merchant, notification_id=number, dedupe_key=key, template="loyalty_enrollment", customer_id="ann",
        payload={}, attempts=0, created_at=NOW, due_at=NOW, leased_until=NOW,
    )  # fmt: skip


def written(
    *,
    merchant: str = "One",
    subject: str = "Hello",
    text: str = "Hi\n",
    html: str = "<p>Hi</p>",
    to: str = "a@example.com",
) -> OutgoingMail:
    content = Mail(subject=subject, text=text, html=html, locale="en", origin="built-in")
    recipient = mailbox(to)
    assert recipient
    return compose(claimed(), content, recipient, merchant_name=merchant, settings=SETTINGS, at=NOW)


def parsed(mail: OutgoingMail) -> EmailMessage:
    return cast("EmailMessage", message_from_bytes(mail.content, policy=policy.default))


def header(mail: OutgoingMail, name: str) -> str:
    """Return a header as a mail program shows it, decoded by RFC 2047 as it is written."""
    raw = message_from_bytes(mail.content, policy=policy.compat32)[name]
    return str(make_header(decode_header(raw.replace("\r\n", "").strip())))


def test_a_mail_has_what_servers_and_readers_expect() -> None:
    message = parsed(written(subject="Welcome", text="Hi Ann\n", html="<p>Hi Ann</p>"))
    assert message["From"] == "One <loyalty@shops.example.com>"
    assert message["To"] == "a@example.com"
    assert message["Subject"] == "Welcome"
    assert message["Date"] == "Fri, 20 Nov 2026 07:00:00 +0000"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert [part.get_content() for part in message.iter_parts()] == ["Hi Ann\r\n", "<p>Hi Ann</p>"]
    assert message.defects == []


def test_a_merchant_without_a_name_sends_as_the_platform() -> None:
    assert header(written(merchant=" \r\n"), "From") == "Shops <loyalty@shops.example.com>"


HOSTILE = st.one_of(
    st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=120),
    st.lists(
        st.sampled_from(
            ["Müller", " ", "&", '"', "\\", ",", "<", ">", "@", "(", ")", ":", ";", "=?utf-8?q?x?=",
             "\r\nBcc: eve@x.org", "\n", "\r", "\x00", "\x0b", "\u2028", "😀", "日本", "a" * 90, ".", "--", "=_"]
        ), max_size=12
    ).map("".join),
)  # fmt: skip


@given(name=HOSTILE, subject=HOSTILE)
def test_no_name_and_no_subject_adds_a_header_or_loses_a_letter(name: str, subject: str) -> None:
    mail = written(merchant=name, subject=subject)
    message = parsed(mail)
    assert [one.lower() for one in message] == [
        "from", "to", "subject", "date", "message-id", "auto-submitted", "mime-version", "content-type"
    ]  # fmt: skip
    assert message["From"].addresses[0].addr_spec == "loyalty@shops.example.com"
    assert len(message["From"].addresses) == 1
    head = mail.content.split(b"\r\n\r\n")[0]
    assert head.isascii()
    assert b"\n" not in head.replace(b"\r\n", b"")
    assert max(map(len, head.split(b"\r\n"))) <= MAX_LINE
    if "=?" not in subject:
        assert header(mail, "Subject") == mail.subject


@given(text=st.one_of(HOSTILE, st.lists(HOSTILE).map("\n".join)))
def test_a_body_arrives_as_it_was_written_whatever_is_in_it(text: str) -> None:
    message = parsed(written(text=text, html=f"<pre>{text}</pre>"))
    plain, html = message.iter_parts()
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    assert plain.get_payload(decode=True).decode().replace("\r\n", "\n") == lines  # type: ignore[union-attr]
    assert html.get_payload(decode=True).decode().replace("\r\n", "\n") == f"<pre>{lines}</pre>"  # type: ignore[union-attr]


def test_a_body_that_has_the_boundary_in_it_does_not_end_its_part() -> None:
    boundary = parsed(written()).get_boundary()
    message = parsed(written(text=f"one\n--{boundary}--\ntwo"))
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]


@pytest.mark.parametrize(
    "text", ["=?utf-8?q?PayPal_=3Csecurity=40example.com=3E?=", "a =? b", "=?", "ö =?utf-8?b?w7Y=?="]
)
def test_what_looks_like_an_encoded_word_is_shown_as_it_is_written(text: str) -> None:
    mail = written(merchant=text, subject=text)
    assert parsed(mail)["Subject"] == text
    # Python's parser puts a space between two encoded words of a name.
    assert header(mail, "From") == f"{text} <loyalty@shops.example.com>"
    (sender,) = parsed(mail)["From"].addresses
    assert sender.addr_spec == "loyalty@shops.example.com"


def test_every_line_of_a_body_is_short_and_ends_with_both_characters() -> None:
    content = written(text="ö" * 5000, html="x" * 5000).content
    assert max(map(len, content.split(b"\r\n"))) <= 78
    assert b"\n" not in content.replace(b"\r\n", b"")


def test_the_message_id_is_the_same_for_the_same_mail_and_for_no_other() -> None:
    one = message_id(claimed(), "loyalty@shops.example.com")
    assert one == message_id(claimed(), "loyalty@shops.example.com")
    assert one.startswith("<7.")
    assert one.endswith("@shops.example.com>")
    assert "ann" not in one
    others = [claimed(8), claimed(merchant="m2"), claimed(key="welcome_bonus/2")]
    assert len({one, *(message_id(other, "loyalty@shops.example.com") for other in others)}) == 4


def test_an_address_with_another_domain_or_name_is_written_as_servers_take_it() -> None:
    assert mailbox(" ann@exämple.com ") == Mailbox(address="ann@xn--exmple-cua.com")
    assert mailbox("jörg@exämple.com") == Mailbox(address="jörg@xn--exmple-cua.com", is_utf8=True)
    assert "To: jörg@xn--exmple-cua.com\r\n".encode() in written(to="jörg@exämple.com").content


@pytest.mark.parametrize(
    "text",
    ["ann", "ann@localhost", "root@mailhost", "a b@example.com", "ann@example.com\nx", "@example.com", "ann@[::1]"],
)
def test_what_is_no_address_of_the_world_is_none(text: str) -> None:
    assert mailbox(text) is None


def test_no_address_is_in_the_text_of_a_mail_that_is_shown() -> None:
    mail = written(to="ann.other@example.org")
    assert "ann.other" not in repr(mail) + str(mail)


@pytest.mark.parametrize(
    ("stage", "code", "text", "status"),
    [
        (Stage.RECIPIENT, 450, "4.2.1 busy", Status.PENDING),
        (Stage.CONTENT, 452, "full", Status.PENDING),
        (Stage.RECIPIENT, 550, "5.1.1 unknown", Status.PARKED),
        (Stage.RECIPIENT, 550, "unknown", Status.PARKED),
        (Stage.RECIPIENT, 552, "5.2.2 mailbox full", Status.PARKED),
        (Stage.RECIPIENT, 550, "5.2.1 mailbox disabled", Status.PARKED),
        (Stage.RECIPIENT, 554, "5.1.1 <a@b>: Recipient address rejected: Access denied", Status.PARKED),
        (Stage.RECIPIENT, 550, "5.4.1 Recipient address rejected: Access denied", Status.PARKED),
        (Stage.RECIPIENT, 550, "mailbox is gone (#5.1.1)", Status.PARKED),
        (Stage.RECIPIENT, 550, "<ann@b>: Recipient address rejected: User unknown in local recipient table",
         Status.PARKED),
        (Stage.RECIPIENT, 550, "Requested action not taken: mailbox unavailable", Status.PARKED),
        (Stage.RECIPIENT, 550, "No such user here", Status.PARKED),
        (Stage.RECIPIENT, 550, "<relay.policy@spam.example.com> unknown", Status.PARKED),
        (Stage.RECIPIENT, 550, "5.1.0 no mailbox here by that name", Status.PARKED),
        (Stage.RECIPIENT, 551, "user not local", Status.PARKED),
        (Stage.RECIPIENT, 553, "sorry, no mailbox here by that name", Status.PARKED),
        (Stage.RECIPIENT, 556, "null MX", Status.PARKED),
        (Stage.RECIPIENT, 554, "5.7.1 relay access denied", Status.FAILED),
        (Stage.RECIPIENT, 504, "5.5.2 <web1>: Helo command rejected: need fully-qualified hostname", Status.FAILED),
        (Stage.RECIPIENT, 554, "5.3.2 System not accepting network messages", Status.FAILED),
        (Stage.RECIPIENT, 550, "5.4.5 Daily user sending limit exceeded", Status.FAILED),
        (Stage.RECIPIENT, 550, "5.4.4 unable to route", Status.FAILED),
        (Stage.RECIPIENT, 553, "sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", Status.FAILED),
        (Stage.RECIPIENT, 553, "sorry, that domain isn't in my list of allowed rcpthosts", Status.FAILED),
        (Stage.RECIPIENT, 550, "relay not permitted", Status.FAILED),
        (Stage.RECIPIENT, 550, "<ann@b>: Relay access denied", Status.FAILED),
        (Stage.RECIPIENT, 550, "Please turn on SMTP Authentication in your mail client", Status.FAILED),
        (Stage.RECIPIENT, 550, "5.1.0 Authentication required", Status.FAILED),
        (Stage.RECIPIENT, 550, "Administrative prohibition", Status.FAILED),
        (Stage.RECIPIENT, 550, "rejected by policy", Status.FAILED),
        (Stage.RECIPIENT, 550, "Rejected", Status.FAILED),
        (Stage.RECIPIENT, 550, "<mail.example.com>: Client host rejected", Status.FAILED),
        (Stage.RECIPIENT, 550, "Sender verify failed", Status.FAILED),
        (Stage.RECIPIENT, 550, "Too many recipients, limit reached", Status.FAILED),
        (Stage.RECIPIENT, 550, "blocked, see spamhaus", Status.FAILED),
        (Stage.RECIPIENT, 550, "192.5.1.1 is on a blacklist", Status.FAILED),
        (Stage.RECIPIENT, 550, "unknown, said 10.5.7.1", Status.PARKED),
        (Stage.RECIPIENT, 550, "unknown, said 5.7.1.2.", Status.PARKED),
        (Stage.RECIPIENT, 550, "unknown, said Exim 4.97.1", Status.PARKED),
        (Stage.RECIPIENT, 550, "mailbox disabled for this recipient", Status.PARKED),
        (Stage.RECIPIENT, 550, "The email account that you tried to reach does not exist", Status.PARKED),
        (Stage.RECIPIENT, 550, "Unrouteable address", Status.PARKED),
        *((Stage.RECIPIENT, 550, text, Status.FAILED) for text in (
            "Unauthorized", "Invalid credentials", "hourly quota exceeded", "Rate exceeded", "Greylisted",
            "Access refused", "Mail content refused", "From address not verified", "Account suspended: contact support",
            "client host not accepted", "DNS failure", "MX lookup failed", "Backend unavailable", "internal error",
            "5.2.0 message refused", "Trial account may only send to verified recipients",
        )),
        (Stage.RECIPIENT, 553, "From address not owned by user", Status.FAILED),
        (Stage.CONTENT, 550, "5.1.0 Sender rejected", Status.FAILED),
        (Stage.RECIPIENT, 521, "does not accept mail", Status.FAILED),
        (Stage.RECIPIENT, 552, "mailbox full", Status.FAILED),
        (Stage.RECIPIENT, 554, "unknown", Status.FAILED),
        (Stage.CONTENT, 550, "5.4.5 Daily user sending limit exceeded", Status.FAILED),
        (Stage.CONTENT, 554, "5.7.1 spam", Status.FAILED),
        (Stage.CONTENT, 550, "5.1.1 unknown", Status.PARKED),
        (Stage.CONTENT, 552, "too large", Status.FAILED),
        (Stage.RECIPIENT, 530, "5.7.0 authentication required", None),
        (Stage.RECIPIENT, 550, "5.1.8 sender's domain", None),
        (Stage.CONTENT, 550, "5.1.7 sender", None),
    ],
)  # fmt: skip
def test_what_an_answer_means(stage: Stage, code: int, text: str, status: Status | None) -> None:
    assert status_after(stage, code, text) is status


@pytest.mark.parametrize(
    ("status", "text", "is_recipients"),
    [
        (Status.PARKED, "5.1.1 unknown", True),
        (Status.PARKED, "mailbox full (#5.2.2)", True),
        (Status.PARKED, "5.1.0 something else", False),
        (Status.PARKED, "5.4.1 Recipient address rejected", False),
        (Status.PARKED, "unknown", False),
        (Status.PENDING, "4.2.2 mailbox full", False),
        (Status.FAILED, "5.7.1 spam", False),
    ],
)
def test_which_refusals_are_certainly_about_their_recipient(status: Status, text: str, is_recipients: bool) -> None:
    assert is_recipients_matter(status, text) is is_recipients


@pytest.mark.parametrize("sent", ["jo\u0308rg", "j\u00f6rg"])
@pytest.mark.parametrize("said", ["jo\u0308rg", "j\u00f6rg"])
def test_an_address_is_masked_in_whatever_form_of_letters_it_comes_back(sent: str, said: str) -> None:
    found = answer(550, f"5.1.1 {said} unknown, {said}@example.com", recipient=f"{sent}@example.com")
    assert found == "550 5.1.1 <address> unknown, <address>"


def test_an_answer_is_kept_without_addresses_and_on_one_line() -> None:
    text = "5.1.1 <Ann.Other@example.org>: Recipient ann.other rejected\nsee jörg@exämple.com\x00 \x1b[2J" + "x" * 500
    found = answer(550, text, recipient="ann.other@example.org")
    assert found.startswith("550 5.1.1 <address> Recipient <address> rejected see <address>")
    assert len(found) <= 300
    assert found.isprintable()
    assert without_addresses("to: ann@example.com, (bea@example.com)") == "to: <address> <address>"


@pytest.mark.parametrize(
    ("status", "reason", "is_refused"),
    [
        ("failed", "the shop does not list the merchant", True),
        ("parked", "550 5.1.1 unknown", True),
        ("parked", "the customer has no address", False),
        ("parked", "by hand: 550 told at the till (root)", False),
        ("void", "550 is no code here", False),
        ("sent", None, False),
    ],
)
def test_what_counts_as_refused(status: str, reason: str | None, is_refused: bool) -> None:
    assert SettledMails(status=status, reason=reason, mails=1).is_refused is is_refused


def test_mails_keep_their_distance_and_do_not_catch_up_after_a_pause() -> None:
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = Pace(60, clock=lambda: now[0], sleep=sleep)
    for _ in range(3):
        pace.wait()
    assert slept == [1.0, 1.0]
    now[0] += 100
    pace.wait()
    pace.wait()
    assert slept == [1.0, 1.0, 1.0]
    Pace(None, clock=lambda: now[0], sleep=sleep).wait()
    assert len(slept) == 3
