"""The ways out for mails: a server with and without encryption and login, a folder, the console, the resource."""

import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from loyalty_pipelines.domain.mail_settings import MailNotConfiguredError, mail_settings
from loyalty_pipelines.domain.mails import Mail
from loyalty_pipelines.domain.notifications import (
    ClaimedMail,
    MailNotTakenError,
    MailServerError,
    OutgoingMail,
    Status,
    compose,
    mailbox,
)
from loyalty_pipelines.resources.mail_transports import transport_for
from loyalty_pipelines.resources.mailer import Mailer
from tests.mail_server import DROP, PASSWORD, USER, MailServer, certificate, closed_port, mail_server

NOW = datetime(2026, 11, 20, 7, 0, tzinfo=UTC)
# aiosmtpd thinks of passwords on their way; on loopback there is none.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
LOGIN = f"{USER}:{PASSWORD}@"


@pytest.fixture(autouse=True)
def _trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a test trusts is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))


def settings(url: str):
    return mail_settings({"LOYALTY_MAIL_URL": url, "LOYALTY_MAIL_FROM": "Shops <loyalty@shops.example.com>"})


def mail(to: str = "ann@example.com", *, merchant: str = "m1", text: str = "Hi\n.\n..two\n") -> OutgoingMail:
    recipient = mailbox(to)
    assert recipient
    return compose(
        ClaimedMail(
            merchant_id=merchant, notification_id=7, dedupe_key="k", template="loyalty_enrollment", customer_id="ann",
            payload={}, attempts=0, created_at=NOW, due_at=NOW, leased_until=NOW,
        ),
        Mail(subject="Hello", text=text, html="<p>Hi</p>", locale="en", origin="built-in"),
        recipient, merchant_name="One", settings=settings("console:"), at=NOW,
    )  # fmt: skip


def hand_over(url: str, *mails: OutgoingMail, timeout: float = 30) -> None:
    transport = transport_for(settings(url), timeout_seconds=timeout)
    try:
        for one in mails or (mail(),):
            transport.send(one)
    finally:
        transport.close()


def problem(url: str) -> str:
    """Hand a mail over to what can't take any, and return what is said about that."""
    with pytest.raises(MailServerError) as refused:
        hand_over(url)
    text = str(refused.value)
    assert text.endswith("The mails wait.")
    assert PASSWORD not in text
    assert "@" not in text
    return text


# --- a server ---


def test_a_mail_arrives_as_it_left_dots_and_all() -> None:
    with mail_server() as server:
        hand_over(server.url())
    assert server.mails[0].content == mail().content
    assert server.mails[0].body("plain") == "Hi\n.\n..two\n"


def test_with_starttls_and_a_login_it_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, authority = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with mail_server(tls=context, is_login_needed=True) as server:
        hand_over(server.url("", login=LOGIN), mail(), mail())
    assert (len(server.mails), server.connections) == (2, 1)


def test_with_tls_from_the_start_and_a_login_it_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, authority = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with mail_server(tls=context, is_tls_from_start=True, is_login_needed=True) as server:
        hand_over(server.url("", scheme="smtps", login=LOGIN))
    assert len(server.mails) == 1


def test_a_server_without_encryption_gets_neither_password_nor_mail() -> None:
    with mail_server(is_login_needed=True) as server:
        assert "offers no encryption (STARTTLS)" in problem(server.url("", login=LOGIN))
    assert (server.mails, server.commands) == ([], [])


@pytest.mark.parametrize("is_tls_from_start", [False, True])
def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path, is_tls_from_start: bool) -> None:
    context, _ = certificate(tmp_path)
    with mail_server(tls=context, is_tls_from_start=is_tls_from_start) as server:
        text = problem(server.url("", scheme="smtps" if is_tls_from_start else "smtp"))
    assert "self-signed certificate" in text
    assert "SSL_CERT_FILE" in text
    assert server.mails == []


def test_a_certificate_of_another_host_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, authority = certificate(tmp_path, name="other.example.com")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with mail_server(tls=context) as server:
        assert "certificate is not valid for 'localhost'" in problem(server.url(""))


def test_a_wrong_password_is_said_to_be_wrong_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, authority = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with mail_server(tls=context, is_login_needed=True) as server:
        text = problem(server.url("", login=f"{USER}:not{PASSWORD}@"))
        assert "refuses user or password (535 " in text
        assert "correct LOYALTY_MAIL_URL" in text
        assert "letters that are not ASCII" in problem(server.url("", login=f"{USER}:%C3%A9@"))


def test_a_server_without_a_login_says_so_and_one_that_wants_one_too() -> None:
    with mail_server() as server:
        assert "has no login" in problem(server.url(login=LOGIN))
    with mail_server(is_login_needed=True) as server:
        assert "refuses the sender (530 " in problem(server.url())


@pytest.mark.parametrize(
    ("logins", "answer", "said"),
    [
        ("XOAUTH2 NTLM", "", "offers no login that we know (PLAIN, LOGIN, CRAM-MD5)"),
        ("PLAIN", "454 4.7.0 Temporary authentication failure",
         "can't check user and password at the moment (454 4.7.0 Temporary authentication failure)"),
        ("PLAIN", "535 5.7.8 no", "refuses user or password (535 5.7.8 no): correct LOYALTY_MAIL_URL"),
        ("PLAIN", DROP, "closes the connection before any mail"),
    ],
)  # fmt: skip
def test_what_keeps_a_server_from_a_login_is_said(logins: str, answer: str, said: str) -> None:
    with talking_server({"EHLO": f"250-there\r\n250 AUTH {logins}", "AUTH": answer}) as port:
        assert said in problem(f"smtp://{LOGIN}localhost:{port}?tls=none")


@contextmanager
def talking_server(answers: dict[str, str]) -> Iterator[int]:
    """A server that says to one caller what it is told to, and 250 to everything else; yields its port."""
    with socket.create_server(("localhost", 0)) as listening:

        def talk() -> None:
            caller, _ = listening.accept()
            with caller, caller.makefile("rw", newline="") as line:
                line.write("220 there\r\n")
                line.flush()
                for said in line:
                    answer = answers.get(said.split()[0].upper(), "250 OK")
                    if answer == DROP:
                        return
                    line.write(f"{answer}\r\n")
                    line.flush()

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(10)


def test_nobody_who_listens_and_no_such_host_are_told_apart_from_a_refusal() -> None:
    assert "can't be reached (Connection refused)" in problem(f"smtp://{LOGIN}localhost:{closed_port()}")
    assert "can't be reached" in problem("smtp://no-such-host.invalid")


def test_a_server_that_never_says_a_word_times_out() -> None:
    with socket.create_server(("localhost", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(MailServerError, match=r"gives no answer within 0\.3 s|closes the connection"):
            hand_over(f"smtp://localhost:{port}?tls=none", timeout=0.3)


def test_letters_in_an_address_that_the_server_does_not_take_park_the_mail_alone() -> None:
    with mail_server(enable_SMTPUTF8=False) as server:
        with pytest.raises(MailNotTakenError) as refused:
            hand_over(server.url(), mail(), mail("jörg@example.com"))
        assert refused.value.status is Status.PARKED
        assert "jörg" not in str(refused.value)
        hand_over(server.url(), mail("bea@example.com"))
    assert server.recipients == ["ann@example.com", "bea@example.com"]


def test_letters_in_an_address_that_the_server_takes_arrive() -> None:
    with mail_server(enable_SMTPUTF8=True) as server:
        hand_over(server.url(), mail("jörg@example.com"), mail())
    assert server.recipients == ["jörg@example.com", "ann@example.com"]
    assert "To: jörg@example.com" in server.mails[0].content.decode()


def test_after_a_refused_recipient_the_next_mail_goes_over_the_same_connection() -> None:
    with mail_server() as server:
        server.refuse("rcpt", "550 5.1.1 no", only="eve@example.com")
        transport = transport_for(settings(server.url()))
        with pytest.raises(MailNotTakenError):
            transport.send(mail("eve@example.com"))
        transport.send(mail())
        transport.close()
    assert (server.recipients, server.connections) == (["ann@example.com"], 1)


# --- a folder, the console ---


def test_a_folder_gets_one_file_per_mail_and_a_repeat_overwrites_it(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "mails"
    for text in ("first", "second"):
        hand_over(f"folder://{folder}", mail(text=text))
    (file,) = folder.iterdir()
    assert file.name == "m1-7.eml"
    assert b"second" in file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("merchant", ["../../etc/passwd", "..", "a/b\\c", "名" * 100, "x" * 250, "\n"])
def test_whatever_a_merchants_id_is_the_file_is_in_the_folder(tmp_path: Path, merchant: str) -> None:
    folder = tmp_path / "mails"
    hand_over(f"folder://{folder}", mail(merchant=merchant), mail(merchant=merchant + "2"))
    assert len([one for one in folder.iterdir() if one.suffix == ".eml"]) == 2
    assert {one.name for one in tmp_path.iterdir()} == {"mails"}


def test_a_folder_that_cannot_be_written_to_is_nobodys_fault_but_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "can't be written to" in problem(f"folder://{tmp_path}/file")


def test_the_console_shows_subject_and_text_and_no_address(capsys: pytest.CaptureFixture[str]) -> None:
    hand_over("console:", mail(text="Hi \x1b[2JAnn\n"))
    out = capsys.readouterr().out
    assert "--- mail 7 of m1: Hello" in out
    assert "Hi  [2JAnn" in out
    assert "@" not in out


# --- the resource ---


def test_the_resource_reads_the_environment_when_it_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mailer = Mailer()
    with pytest.raises(MailNotConfiguredError), mailer.open():
        pass
    monkeypatch.setenv("LOYALTY_MAIL_URL", f"folder://{tmp_path}")
    with mailer.open() as (found, transport):
        transport.send(mail())
    assert found.folder == tmp_path
    assert (tmp_path / "m1-7.eml").exists()


def test_no_answer_may_take_so_long_that_a_mail_outlasts_its_lease() -> None:
    assert Mailer(timeout_seconds=30).timeout_seconds == 30
    with pytest.raises(ValidationError, match="less than or equal to 30"):
        Mailer(timeout_seconds=31)


def test_the_resource_keeps_no_url_and_no_password_in_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOYALTY_MAIL_URL", f"smtp://{LOGIN}localhost")
    monkeypatch.setenv("LOYALTY_MAIL_FROM", "loyalty@shops.example.com")
    mailer = Mailer()
    with mailer.open():
        assert set(Mailer.model_fields) == {"timeout_seconds"}
        assert PASSWORD not in str(mailer) + repr(mailer)


def test_a_server_that_is_never_given_a_mail_is_never_connected_to() -> None:
    with mail_server() as server:
        transport_for(settings(server.url())).close()
        assert isinstance(server, MailServer)
    assert server.connections == 0
