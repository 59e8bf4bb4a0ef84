"""The ways out for alerts: Slack and its like, any webhook, e-mail. No Dagster: the command line sends, too."""

import json
import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, formataddr
from io import BytesIO
from threading import Thread
from typing import Any, Protocol

import requests
import urllib3
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from loyalty_pipelines.domain.alert_messages import AlertChannel, ChannelError, Message, UnansweredError
from loyalty_pipelines.domain.alert_settings import (
    EMAIL,
    EMAIL_VARIABLE,
    SLACK,
    SLACK_VARIABLE,
    WEBHOOK,
    WEBHOOK_VARIABLE,
    AlertSettings,
)
from loyalty_pipelines.domain.mail_settings import MailSettings
from loyalty_pipelines.domain.notifications import Mailbox, MailNotTakenError, MailServerError, OutgoingMail
from loyalty_pipelines.resources.mail_transports import transport_for

# A sensor's tick may take 60 seconds, and other sensors wait for it. A message has so long in all, whatever it waits
# for: looking up a name, connecting, each recipient.
SEND_SECONDS = 20.0
CONNECT_SECONDS = 4.0
# Slow, not dead: some hooks call others before they answer.
ANSWER_SECONDS = 12.0
ATTEMPTS = 2
WAIT_SECONDS = 0.5
TOO_MANY_REQUESTS = 429
# What a message that is too long is answered with.
TOO_LONG = (400, 413)
MAIL_SECONDS = 10.0
# A mail server looks through a mail before it answers.
CONTENT_SECONDS = 20.0
TOO_LATE = "was not done in time"
LONGEST_SLACK_TEXT = 38_000
# No server needs to take eight bits.
PLAIN = SMTP.clone(cte_type="7bit")

# It writes addresses, at DEBUG and when it can't read an answer's headers; and that of a webhook is its secret.
logging.getLogger("urllib3").setLevel(logging.ERROR)


class _PassingError(ChannelError):
    """A failure after which the same message may be taken at once, and that took nothing for sure."""


class _ContentRefusedError(ChannelError):
    """The channel does not take this message; it may be too long."""

    def __init__(self, status: int, variable: str) -> None:
        self.status = status
        super().__init__(f"answered {status}: is {variable} right?")


@dataclass
class _Progress:
    """How far a message has got, for whoever waits for it."""

    ends_at: float
    # Something has left whose answer has not come.
    is_sent: bool = False
    told: int = 0
    recipients: int = 1

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for it any more."""
        return time.monotonic() >= self.ends_at

    def leave(self) -> None:
        """Note that the content leaves now; `TimeoutError` if nobody waits: the next channel may have it already."""
        if self.is_over:
            raise TimeoutError
        self.is_sent = True


class _Way(Protocol):
    """A channel whose sender may have stopped waiting."""

    def send(self, message: Message, progress: _Progress) -> str:
        """See `AlertChannel`; what has left and who was told is in `progress`."""
        ...


class _InTime:
    """A channel that gives up in time; see `AlertChannel`.

    A timeout of a socket is for one read, and that of looking up a name is the system's: so the work is a thread's.
    """

    def __init__(self, way: _Way) -> None:
        self._way = way

    def send(self, message: Message) -> str:
        seconds = SEND_SECONDS
        progress = _Progress(ends_at=time.monotonic() + seconds)
        outcome: Future[str] = Future()
        Thread(target=self._work, args=(outcome, message, progress), daemon=True).start()
        wait([outcome], timeout=seconds)
        if outcome.done():
            return outcome.result()
        if progress.told:
            return f"only {progress.told} of {progress.recipients} recipients were told within {seconds:g} s"
        text = f"was not done within {seconds:g} s"
        raise UnansweredError(text) if progress.is_sent else ChannelError(text)

    def _work(self, outcome: "Future[str]", message: Message, progress: _Progress) -> None:
        try:
            outcome.set_result(self._way.send(message, progress))
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            outcome.set_exception(error)


def channels_for(settings: AlertSettings) -> dict[str, AlertChannel]:
    """Return the channels that can be used, by name; nothing is opened before the first message."""
    made: dict[str, AlertChannel] = {}
    if settings.slack_url:
        made[SLACK] = _InTime(SlackChannel(settings.slack_url))
    if settings.webhook_url:
        made[WEBHOOK] = _InTime(WebhookChannel(settings.webhook_url))
    if settings.mail_to and settings.mail:
        made[EMAIL] = _InTime(MailChannel(settings.mail, settings.mail_to))
    return made


class SlackChannel:
    """An incoming webhook of Slack, or of what understands its messages: Mattermost, Rocket.Chat, Discord (/slack)."""

    def __init__(self, url: str) -> None:
        self._url = url

    def send(self, message: Message, progress: _Progress) -> str:
        """Post a message; see `AlertChannel`."""
        whole, short = {"text": message.slack[:LONGEST_SLACK_TEXT]}, {"text": message.short}
        return _post_whole_or_short(self._url, whole, short, variable=SLACK_VARIABLE, progress=progress)


class WebhookChannel:
    """A server that takes the JSON document of docs/alerts.md."""

    def __init__(self, url: str) -> None:
        self._url = url

    def send(self, message: Message, progress: _Progress) -> str:
        """Post a message; see `AlertChannel`."""
        whole = {**message.document, "key": message.key, "sent_at": message.at.isoformat(), "text": message.text}
        alerts = [{**one, "detail": "", "merchants": []} for one in message.document["alerts"]]
        short = {**whole, "text": message.short, "alerts": alerts} if alerts else whole
        return _post_whole_or_short(self._url, whole, short, variable=WEBHOOK_VARIABLE, progress=progress)


def _post_whole_or_short(
    url: str, whole: Mapping[str, Any], short: Mapping[str, Any], *, variable: str, progress: _Progress
) -> str:
    """Post a document, and a short one where the whole is refused; return what there is to say of it."""
    try:
        _post(url, whole, variable=variable, progress=progress)
    except _ContentRefusedError as refused:
        if short == whole:
            raise
        answer = f"answered {refused.status}"
    else:
        return ""
    try:
        _post(url, short, variable=variable, progress=progress)
    except _ContentRefusedError:
        raise ChannelError(f"{answer}, to a short form of the message, too") from None
    return f"took only a short form of the message ({answer})"


def _post(url: str, document: Mapping[str, Any], *, variable: str, progress: _Progress) -> None:
    """Post a document, with a second try after what passes; `ChannelError` says what happened, never the address."""
    retrying = Retrying(
        retry=retry_if_exception_type(_PassingError),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_fixed(WAIT_SECONDS),
        reraise=True,
    )
    retrying(_post_once, url, document, variable, progress)


class _Body(BytesIO):
    """A body that says when it begins to be sent, and stays here when it is too late."""

    def __init__(self, content: bytes, progress: _Progress) -> None:
        super().__init__(content)
        self._progress = progress

    def read(self, size: int | None = -1, /) -> bytes:
        self._progress.leave()
        return super().read(size)


def _post_once(url: str, document: Mapping[str, Any], variable: str, progress: _Progress) -> None:
    if progress.is_over:
        # Nobody waits for it, and the next channel may have it already.
        raise ChannelError(TOO_LATE)
    progress.is_sent = False
    try:
        # Nobody is followed elsewhere: an address with a secret in it is for one server. The body is not read.
        answer = requests.post(
            url,
            data=_Body(json.dumps(document).encode(), progress),
            timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
            allow_redirects=False,
            stream=True,
            headers={"User-Agent": "loyalty-pipelines", "Content-Type": "application/json"},
        )
        answer.close()
    except (requests.exceptions.RequestException, ValueError, OSError) as error:
        if progress.is_over and not progress.is_sent:
            # Whatever it was called on its way up: the body did not leave.
            raise ChannelError(TOO_LATE) from None
        raise _problem(error, variable, is_sent=progress.is_sent) from None
    progress.is_sent = False
    status = answer.status_code
    if status >= 500 or status == TOO_MANY_REQUESTS:
        raise _PassingError(f"answered {status}")
    if status in TOO_LONG:
        raise _ContentRefusedError(status, variable)
    if not 200 <= status < 300:
        raise ChannelError(f"answered {status}: is {variable} right?")


def _problem(error: Exception, variable: str, *, is_sent: bool) -> ChannelError:
    """Return what an error of a request means; what it says itself may have the address in it."""
    # What has left may have been taken: no second try, the next channel rather hears it, too.
    unanswered = UnansweredError if is_sent else ChannelError
    kind = type(error).__name__
    if isinstance(error, requests.exceptions.SSLError):
        return ChannelError(
            f"its TLS certificate can't be trusted ({kind}): correct {variable}, or name your own authority in "
            "REQUESTS_CA_BUNDLE"
        )
    if isinstance(error, requests.exceptions.ReadTimeout):
        return unanswered(f"gave no answer within {ANSWER_SECONDS:g} s ({kind})")
    if isinstance(error, requests.exceptions.ConnectionError):
        if error.args and isinstance(error.args[0], urllib3.exceptions.ProtocolError):
            return unanswered(f"closed the connection without an answer ({kind})")
        return _PassingError(f"can't be reached ({kind}): is {variable} right?")
    if isinstance(error, OSError) and not isinstance(error, requests.exceptions.RequestException):
        # The library's own: it looks for the file before it connects.
        return ChannelError("can't be asked: the file that REQUESTS_CA_BUNDLE names can't be read")
    return ChannelError(f"can't be asked ({kind}): correct {variable}")


class MailChannel:
    """The mail server that customers' mails go through."""

    def __init__(self, settings: MailSettings, recipients: tuple[Mailbox, ...]) -> None:
        self._settings = settings
        self._recipients = recipients

    def send(self, message: Message, progress: _Progress) -> str:
        """Send a mail to each recipient; it was taken when one of them is told. See `AlertChannel`."""

        def on_content(is_sent: bool) -> None:
            if is_sent:
                progress.leave()
            else:
                progress.is_sent = False

        transport = transport_for(
            self._settings, timeout_seconds=MAIL_SECONDS, content_seconds=CONTENT_SECONDS, on_content=on_content
        )
        progress.recipients = len(self._recipients)
        refused, is_any_unanswered = [], False
        try:
            for number, recipient in enumerate(self._recipients, start=1):
                if progress.is_over:
                    break
                try:
                    transport.send(self._mail(message, recipient, number))
                    progress.told += 1
                except MailNotTakenError as error:
                    refused.append(f"recipient {number} of {EMAIL_VARIABLE}: {error} ({type(error).__name__})")
                    is_any_unanswered = is_any_unanswered or progress.is_sent
                except MailServerError as error:
                    # The same for all others: they would only take their time.
                    refused.append(f"{error} ({type(error).__name__})")
                    break
        finally:
            transport.close()
        if not progress.told:
            raise (UnansweredError if is_any_unanswered else ChannelError)("; ".join(refused))
        return "; ".join(refused)

    def _mail(self, message: Message, recipient: Mailbox, number: int) -> OutgoingMail:
        """Return the mail: about the same it has the same Message-ID, so that a mail program shows a repeat once."""
        sender = self._settings.sender
        mail = EmailMessage(policy=PLAIN)
        mail["From"] = formataddr((self._settings.sender_name or "Loyalty Pipelines", sender))
        mail["To"] = recipient.address
        mail["Subject"] = message.subject
        mail["Date"] = format_datetime(message.at)
        mail["Message-ID"] = f"<alert.{message.key}.{number}@{sender.rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(message.text)
        return OutgoingMail(
            merchant_id="alert",
            # For a folder: a file of its own for each message and recipient.
            notification_id=int(f"{int(message.key[:12], 16)}{number}"),
            sender=sender,
            recipient=recipient,
            subject=message.subject,
            text=message.text,
            content=mail.as_bytes(),
        )
