"""The ways out for alerts: Slack and its like, any webhook, e-mail. No Dagster: the command line sends, too."""

import logging
from collections.abc import Mapping
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, formataddr
from typing import Any

import requests
import urllib3
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from loyalty_pipelines.domain.alert_messages import AlertChannel, ChannelError, Message
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

# A sensor's tick may take 60 seconds, and other sensors wait for it: a dead server costs one channel at most two tries
# of two seconds to connect and three for an answer.
CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 3.0
ATTEMPTS = 2
TOO_MANY_REQUESTS = 429
WAIT_SECONDS = 0.5
MAIL_SECONDS = 3.0
LONGEST_SLACK_TEXT = 38_000
# No server needs to take eight bits.
PLAIN = SMTP.clone(cte_type="7bit")

# It writes addresses, at DEBUG and when it can't read an answer's headers; and that of a webhook is its secret.
logging.getLogger("urllib3").setLevel(logging.ERROR)


class _PassingError(ChannelError):
    """A failure after which the same message may be taken at once, and that took nothing for sure."""


def channels_for(settings: AlertSettings) -> dict[str, AlertChannel]:
    """Return the channels that can be used, by name; nothing is opened before the first message."""
    made: dict[str, AlertChannel] = {}
    if settings.slack_url:
        made[SLACK] = SlackChannel(settings.slack_url)
    if settings.webhook_url:
        made[WEBHOOK] = WebhookChannel(settings.webhook_url)
    if settings.mail_to and settings.mail:
        made[EMAIL] = MailChannel(settings.mail, settings.mail_to)
    return made


class SlackChannel:
    """An incoming webhook of Slack, or of what understands its messages: Mattermost, Rocket.Chat, Discord (/slack)."""

    def __init__(self, url: str) -> None:
        self._url = url

    def send(self, message: Message) -> str:
        """Post a message; see `AlertChannel`."""
        _post(self._url, {"text": message.slack[:LONGEST_SLACK_TEXT]}, variable=SLACK_VARIABLE)
        return ""


class WebhookChannel:
    """A server that takes the JSON document of docs/alerts.md."""

    def __init__(self, url: str) -> None:
        self._url = url

    def send(self, message: Message) -> str:
        """Post a message; see `AlertChannel`."""
        document = {**message.document, "key": message.key, "sent_at": message.at.isoformat(), "text": message.text}
        _post(self._url, document, variable=WEBHOOK_VARIABLE)
        return ""


def _post(url: str, document: Mapping[str, Any], *, variable: str) -> None:
    """Post a document, with a second try after what passes; `ChannelError` says what happened, never the address."""
    retrying = Retrying(
        retry=retry_if_exception_type(_PassingError),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_fixed(WAIT_SECONDS),
        reraise=True,
    )
    retrying(_post_once, url, document, variable)


def _post_once(url: str, document: Mapping[str, Any], variable: str) -> None:
    try:
        # Nobody is followed elsewhere: an address with a secret in it is for one server. The body is not read.
        answer = requests.post(
            url,
            json=document,
            timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
            allow_redirects=False,
            stream=True,
            headers={"User-Agent": "loyalty-pipelines"},
        )
        answer.close()
    except requests.exceptions.SSLError as error:
        raise ChannelError(
            f"its TLS certificate can't be trusted ({type(error).__name__}): correct {variable}, or name your own "
            "authority in REQUESTS_CA_BUNDLE"
        ) from None
    except requests.exceptions.ReadTimeout as error:
        # It may have taken it: no second try, the next channel rather hears it, too.
        raise ChannelError(f"gave no answer within {ANSWER_SECONDS:g} s ({type(error).__name__})") from None
    except requests.exceptions.ConnectionError as error:
        if error.args and isinstance(error.args[0], urllib3.exceptions.ProtocolError):
            # The same.
            raise ChannelError(f"closed the connection without an answer ({type(error).__name__})") from None
        raise _PassingError(f"can't be reached ({type(error).__name__}): is {variable} right?") from None
    except (requests.exceptions.RequestException, ValueError) as error:
        # What it says has the address in it.
        raise ChannelError(f"can't be asked ({type(error).__name__}): correct {variable}") from None
    status = answer.status_code
    if status >= 500 or status == TOO_MANY_REQUESTS:
        raise _PassingError(f"answered {status}")
    if not 200 <= status < 300:
        raise ChannelError(f"answered {status}: is {variable} right?")


class MailChannel:
    """The mail server that customers' mails go through."""

    def __init__(self, settings: MailSettings, recipients: tuple[Mailbox, ...]) -> None:
        self._settings = settings
        self._recipients = recipients

    def send(self, message: Message) -> str:
        """Send a mail to each recipient; it was taken when one of them is told. See `AlertChannel`."""
        transport = transport_for(self._settings, timeout_seconds=MAIL_SECONDS)
        told, refused = 0, []
        try:
            for number, recipient in enumerate(self._recipients, start=1):
                try:
                    transport.send(self._mail(message, recipient, number))
                    told += 1
                except MailNotTakenError as error:
                    refused.append(f"recipient {number} of {EMAIL_VARIABLE}: {error} ({type(error).__name__})")
                except MailServerError as error:
                    # The same for all others: they would only take their time.
                    refused.append(f"{error} ({type(error).__name__})")
                    break
        finally:
            transport.close()
        if not told:
            raise ChannelError("; ".join(refused))
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
