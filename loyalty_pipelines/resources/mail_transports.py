"""The ways out for mails: a server, a folder of .eml files, the console. No Dagster: the command line sends, too."""

import contextlib
import os
import smtplib
import ssl
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from loyalty_pipelines.domain.mail_settings import FROM_VARIABLE, URL_VARIABLE, MailSettings, Transport
from loyalty_pipelines.domain.notifications import (
    MailNotTakenError,
    MailServerError,
    MailTransport,
    OutgoingMail,
    Stage,
    Status,
    answer,
    is_recipients_matter,
    status_after,
)

TIMEOUT_SECONDS = 30
LONGEST_FILE_NAME = 100
OK = 250
CLOSING = 421


def transport_for(
    settings: MailSettings,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    content_seconds: float | None = None,
    on_content: Callable[[bool], None] | None = None,
) -> MailTransport:
    """Return the transport that the settings name; nothing is opened before its first mail. See `SmtpTransport`."""
    if settings.transport is Transport.CONSOLE:
        return ConsoleTransport()
    if settings.folder is not None:
        return FolderTransport(settings.folder)
    return SmtpTransport(
        settings, timeout_seconds=timeout_seconds, content_seconds=content_seconds, on_content=on_content
    )


class SmtpTransport:
    """One connection to a mail server, kept for many mails, and opened again when the server has closed it.

    `timeout_seconds` is for each answer: a mail takes four. The longest one is refused, after a new connection with
    encryption and login: MAIL in the old session; banner, EHLO, STARTTLS, EHLO and two answers of the login; MAIL,
    RCPT, DATA, its end, RSET. That is 12, and some more for looking up and connecting.
    `content_seconds` is for the answer to the content, which servers look through first.
    `on_content` is told True when the content is about to be sent, and False when it is answered: between the two,
    nobody knows whether the mail is taken.
    """

    def __init__(
        self,
        settings: MailSettings,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        content_seconds: float | None = None,
        on_content: Callable[[bool], None] | None = None,
    ) -> None:
        self._settings = settings
        self._timeout = timeout_seconds
        self._content_timeout = content_seconds or timeout_seconds
        self._on_content = on_content or (lambda _is_sent: None)
        self._smtp: smtplib.SMTP | None = None

    def send(self, mail: OutgoingMail) -> None:
        """Hand a mail over; see `MailTransport`."""
        smtp = self._begun(mail)
        try:
            code, text = smtp.rcpt(mail.recipient.address)
            if code not in (OK, 251):
                self._refused(mail, Stage.RECIPIENT, code, text)
            code, text = self._answer_to_content(smtp, mail)
            if code != OK:
                self._refused(mail, Stage.CONTENT, code, text)
        except (smtplib.SMTPException, OSError) as error:
            # It may have taken the mail before: then this is the duplicate, with the same Message-ID.
            self._hang_up()
            raise MailNotTakenError(
                f"the mail server gave no answer ({type(error).__name__})", status=Status.PENDING
            ) from error

    def _answer_to_content(self, smtp: smtplib.SMTP, mail: OutgoingMail) -> tuple[int, bytes | str]:
        assert smtp.sock is not None
        smtp.sock.settimeout(self._content_timeout)
        self._on_content(True)
        try:
            code, text = smtp.data(mail.content)
        except smtplib.SMTPDataError as refused:
            code, text = refused.smtp_code, refused.smtp_error
        self._on_content(False)
        if smtp.sock is not None:
            smtp.sock.settimeout(self._timeout)
        return code, text

    def close(self) -> None:
        """Say goodbye, if there is anybody to say it to."""
        if self._smtp is not None:
            with contextlib.suppress(smtplib.SMTPException, OSError):
                self._smtp.quit()
        self._hang_up()

    def _begun(self, mail: OutgoingMail) -> smtplib.SMTP:
        """Return a session in which the sender is accepted for this mail.

        A server that closes an idle or a long session, or that puts it off (4xx: the sender is the same for all mails),
        gets one more try on a new connection.
        """
        for is_last in (False, True):
            smtp = self._smtp or self._connected()
            if mail.recipient.is_utf8 and not smtp.has_extn("smtputf8"):
                raise MailNotTakenError(
                    "the mail server takes no addresses with such letters (no SMTPUTF8)",
                    status=Status.PARKED,
                    is_recipients=True,
                )
            try:
                code, text = smtp.mail(mail.sender, ["SMTPUTF8"] if mail.recipient.is_utf8 else [])
            except (smtplib.SMTPException, OSError) as error:
                self._hang_up()
                if is_last:
                    raise self._problem("closes the connection before any mail", error) from error
                continue
            if code == OK:
                return smtp
            self._hang_up()
            if code >= 500:
                raise self._problem(f"refuses the sender ({_said(code, text)}): correct {FROM_VARIABLE}, or its rights")
            if is_last:
                raise self._problem(f"takes no mail at the moment ({_said(code, text)})")
        raise AssertionError("the loop either returns or raises")

    def _refused(self, mail: OutgoingMail, stage: Stage, code: int, text: bytes | str) -> None:
        """Raise what a refusal of one mail means, with the session ready for the next mail."""
        said = _said(code, text, recipient=mail.recipient.address)
        try:
            if code == CLOSING or self._smtp is None or self._smtp.rset()[0] != OK:
                self._hang_up()
        except (smtplib.SMTPException, OSError):
            self._hang_up()
        status = status_after(stage, code, _text(text))
        if status is None:
            raise self._problem(
                f"refuses the sender or the session ({said}): correct {FROM_VARIABLE} or {URL_VARIABLE}"
            )
        raise MailNotTakenError(said, status=status, is_recipients=is_recipients_matter(status, _text(text)))

    def _connected(self) -> smtplib.SMTP:
        """Connect, encrypt and log in; `MailServerError` says which of the three failed."""
        settings, smtp = self._settings, None
        try:
            smtp = self._open()
            smtp.ehlo_or_helo_if_needed()
            if settings.transport is Transport.SMTP and settings.is_encrypted:
                if not smtp.has_extn("starttls"):
                    raise self._problem(
                        "offers no encryption (STARTTLS): use smtps:// if it listens for TLS, or ?tls=none if it is on "
                        "this machine"
                    )
                smtp.starttls(context=ssl.create_default_context())
                smtp.ehlo_or_helo_if_needed()
            if settings.user is not None and settings.password is not None:
                self._log_in(smtp, settings.user, settings.password)
        except BaseException as error:
            if smtp is not None:
                smtp.close()
            if isinstance(error, (ssl.SSLError, smtplib.SMTPException, OSError)):
                raise self._connection_problem(error) from error
            raise
        self._smtp = smtp
        return smtp

    def _open(self) -> smtplib.SMTP:
        host, port = self._settings.host, self._settings.port
        if self._settings.transport is Transport.SMTPS:
            return smtplib.SMTP_SSL(host, port, timeout=self._timeout, context=ssl.create_default_context())
        return smtplib.SMTP(host, port, timeout=self._timeout)

    def _log_in(self, smtp: smtplib.SMTP, user: str, password: str) -> None:
        try:
            smtp.login(user, password)
        except smtplib.SMTPAuthenticationError as error:
            said = _said(error.smtp_code, error.smtp_error)
            if error.smtp_code < 500:
                raise self._problem(f"can't check user and password at the moment ({said})") from None
            raise self._problem(f"refuses user or password ({said}): correct {URL_VARIABLE}") from None
        except smtplib.SMTPNotSupportedError:
            raise self._problem(f"has no login: leave user and password out of {URL_VARIABLE}") from None
        except smtplib.SMTPException as error:
            # Only the bare class says that; its subclasses say what happened to the connection.
            if type(error) is not smtplib.SMTPException:
                raise
            raise self._problem(
                "offers no login that we know (PLAIN, LOGIN, CRAM-MD5): use another port or server, or leave user and "
                f"password out of {URL_VARIABLE}"
            ) from None
        except UnicodeEncodeError:
            raise self._problem("can't be given user or password: they have letters that are not ASCII") from None

    def _connection_problem(self, error: BaseException) -> MailServerError:
        if isinstance(error, smtplib.SMTPResponseException):
            return self._problem(f"lets nobody in ({_said(error.smtp_code, error.smtp_error)})")
        if isinstance(error, smtplib.SMTPException):
            return self._problem("closes the connection before any mail", error)
        if isinstance(error, ssl.SSLError):
            reason = getattr(error, "verify_message", None) or error.reason or "TLS"
            return self._problem(
                f"can't be talked to in secret ({reason}): correct its certificate, or host and port in "
                f"{URL_VARIABLE}; your own authority belongs in the file that SSL_CERT_FILE names"
            )
        if isinstance(error, TimeoutError):
            return self._problem(f"gives no answer within {self._timeout:g} s")
        reason = getattr(error, "strerror", None) or type(error).__name__
        return self._problem(f"can't be reached ({reason}): is it running, are host and port in {URL_VARIABLE} right?")

    def _problem(self, text: str, error: BaseException | None = None) -> MailServerError:
        cause = f" ({type(error).__name__})" if error else ""
        stop = "" if text.endswith("?") else "."
        return MailServerError(f"The mail server {self._settings.place} {text}{cause}{stop} The mails wait.")

    def _hang_up(self) -> None:
        if self._smtp is not None:
            self._smtp.close()
        self._smtp = None


class FolderTransport:
    """Writes each mail to a file of its own, named by merchant and number: a repeat overwrites it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def send(self, mail: OutgoingMail) -> None:
        """Write a mail, whole or not at all; nobody else may read it."""
        target = self._folder / f"{_file_name(mail.merchant_id)}-{mail.notification_id}.eml"
        half = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(mail.content)
            half.replace(target)
        except OSError as error:
            raise MailServerError(
                f"The folder {self._folder} of {URL_VARIABLE} can't be written to ({error.strerror}). The mails wait."
            ) from error

    def close(self) -> None:
        """Nothing is open."""


class ConsoleTransport:
    """Prints subject and text, and never the address."""

    def send(self, mail: OutgoingMail) -> None:
        """Print a mail."""
        lines = [f"--- mail {mail.notification_id} of {mail.merchant_id}: {mail.subject}", *mail.text.splitlines(), ""]
        for line in lines:
            # A name from the shop must not move the operator's cursor.
            sys.stdout.write("".join(one if one.isprintable() else " " for one in line) + "\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Nothing is open."""


def _file_name(merchant_id: str) -> str:
    """Return an id as a file name: whatever is in it, and however long it is, one of its own."""
    name = quote(merchant_id, safe="")
    return name if len(name) <= LONGEST_FILE_NAME else sha256(merchant_id.encode()).hexdigest()


def _said(code: int, text: bytes | str, *, recipient: str = "") -> str:
    return answer(code, _text(text), recipient=recipient)


def _text(said: bytes | str) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else said
