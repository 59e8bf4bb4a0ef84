"""Mails on their way: which are sent, what one looks like, what a mail server's answer means for it."""

import quopri
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from email.header import Header
from email.utils import format_datetime, formataddr
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import Protocol

from email_validator import EmailNotValidError, validate_email

from loyalty_pipelines.domain.errors import LoyaltyError
from loyalty_pipelines.domain.mail_settings import MailSettings
from loyalty_pipelines.domain.mail_templates import MAX_SUBJECT, one_line
from loyalty_pipelines.domain.mails import MAX_NAME, Mail

EXPIRING = "loyalty_points_expiring"
MAX_ERROR = 300
# So many mails in a row that the server does not take are the server's matter, not theirs: a run ends there, instead
# of using up the tries of all that wait.
REFUSED_IN_A_ROW = 10
ADDRESS = re.compile(r"\S*@\S+")
ENHANCED_CODE = re.compile(r"\s*([245])\.(\d{1,3})\.(\d{1,3})\b")


class Status(StrEnum):
    """Where a mail of the outbox is."""

    PENDING = "pending"
    SENT = "sent"
    FAILED = "failed"
    PARKED = "parked"
    VOID = "void"


@dataclass(frozen=True, kw_only=True)
class MailRetries:
    """How often a mail is tried again, and how long it waits: doubling from the first wait."""

    max_retries: int = 3
    first_wait: timedelta = timedelta(seconds=60)
    longest_wait: timedelta = timedelta(hours=6)


@dataclass(frozen=True, kw_only=True)
class Notification:
    """One row of the outbox, as it is listed and shown."""

    merchant_id: str
    notification_id: int
    dedupe_key: str
    template: str
    customer_id: str
    payload: Mapping[str, object]
    status: str
    attempts: int
    next_attempt_at: datetime
    leased_until: datetime | None
    created_at: datetime
    settled_at: datetime | None
    last_error: str | None
    sent_as: str | None


@dataclass(frozen=True, kw_only=True)
class ClaimedMail:
    """A mail that this sender has leased; `due_at` is when it was due, `leased_until` also says whose lease it is."""

    merchant_id: str
    notification_id: int
    dedupe_key: str
    template: str
    customer_id: str
    payload: Mapping[str, object]
    attempts: int
    created_at: datetime
    due_at: datetime
    leased_until: datetime


@dataclass(frozen=True, kw_only=True)
class Addressee:
    """What the shop and the ledger say of a mail's merchant, customer and account now; None: they have none."""

    merchant_name: str | None
    merchant_timezone: str
    merchant_locale: str | None
    is_customer_active: bool | None
    customer_email: str | None = field(repr=False)
    customer_name: str | None = field(repr=False)
    customer_locale: str | None
    store_id: str | None
    is_account_active: bool | None
    expires_at: datetime | None
    warned_for: datetime | None
    as_of: datetime


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a mail: its next status, why, and whether a server was asked."""

    status: Status
    error: str | None = None
    sent_as: str | None = None
    is_tried: bool = False


@dataclass(frozen=True, kw_only=True)
class Mailbox:
    """An address that mail can be sent to; `is_utf8`: only by servers that take other letters in its first part."""

    address: str = field(repr=False)
    is_utf8: bool = False


@dataclass(frozen=True, kw_only=True)
class OutgoingMail:
    """A mail as it leaves: envelope and bytes."""

    merchant_id: str
    notification_id: int
    sender: str
    recipient: Mailbox
    subject: str
    text: str = field(repr=False)
    content: bytes = field(repr=False)


class MailTransport(Protocol):
    """Takes mails, one after the other."""

    def send(self, mail: OutgoingMail) -> None:
        """Return when the mail is taken; raise `MailNotTakenError` for this one, `MailServerError` for all."""
        ...

    def close(self) -> None:
        """Say goodbye, if there is anybody to say it to."""
        ...


class Stage(StrEnum):
    """What the server answered to, of what is about one mail."""

    RECIPIENT = "recipient"
    CONTENT = "content"


class MailNotTakenError(LoyaltyError):
    """This mail was not taken: PENDING if it may be later, FAILED or PARKED for good. No address in its text."""

    def __init__(self, text: str, *, status: Status) -> None:
        self.status = status
        super().__init__(text)


class MailServerError(LoyaltyError):
    """No mail can be sent at the moment, and it is no mail's fault: they wait. No address or password in its text."""


@dataclass(frozen=True, kw_only=True)
class MerchantMails:
    """What a run did for one merchant, in mails."""

    merchant_id: str
    sent: int = 0
    put_off: int = 0
    failed: int = 0
    parked: int = 0
    void: int = 0

    def plus(self, status: Status) -> "MerchantMails":
        """Return the sum with one more mail; pending means put off."""
        name = "put_off" if status is Status.PENDING else status.value
        return replace(self, **{name: getattr(self, name) + 1})

    @property
    def handled(self) -> int:
        """All mails that were looked at."""
        return self.sent + self.put_off + self.failed + self.parked + self.void


@dataclass(frozen=True, kw_only=True)
class DeliveryReport:
    """What one run did, per merchant; what kept it from going on, and the merchants whose mails could not be read."""

    merchants: Mapping[str, MerchantMails] = field(default_factory=dict)
    server_problem: str | None = None
    failures: Mapping[str, str] = field(default_factory=dict)
    template_problems: Sequence[str] = ()

    def total(self, name: str) -> int:
        """Return the sum of the counter `name` (of `MerchantMails`) over all merchants."""
        return sum(getattr(mails, name) for mails in self.merchants.values())


@dataclass(frozen=True, kw_only=True)
class UndeliveredMails:
    """What a merchant's customers have not got: what waits, what was given up, and the age of the oldest."""

    merchant_id: str
    pending: int
    failed: int
    oldest_seconds: float


@dataclass(frozen=True, kw_only=True)
class SettledMails:
    """How many mails were settled with a status, and why."""

    status: str
    reason: str | None
    mails: int

    @property
    def is_refused(self) -> bool:
        """Whether a mail server refused them: whatever failed, and recipients that it refused (its code says so)."""
        return self.status == Status.FAILED or (
            self.status == Status.PARKED and re.match(r"[45]\d\d ", self.reason or "") is not None
        )


class NotificationNotFoundError(LoyaltyError):
    """No mail of the outbox has this number."""

    def __init__(self, *, notification_id: int, merchant_id: str | None) -> None:
        self.notification_id = notification_id
        of_merchant = "" if merchant_id is None else f" of merchant {merchant_id!r}"
        super().__init__(
            f"There is no mail {notification_id}{of_merchant}: 'loyalty notifications list' shows the numbers."
        )


class NotificationStateError(LoyaltyError):
    """The mail is in a state in which this can't be done to it; nothing is changed."""

    def __init__(self, mail: Notification, *, expected: str) -> None:
        self.mail = mail
        super().__init__(
            f"Mail {mail.notification_id} of merchant {mail.merchant_id!r} is {mail.status}; expected {expected}. "
            "Nothing was changed."
        )


# --- what is sent -----------------------------------------------------------------------------------------


def reason_not_to_send(mail: ClaimedMail, found: Addressee) -> Result | None:
    """Return what becomes of a mail that is not to be sent; None: it is."""
    if not found.is_account_active:
        return Result(status=Status.VOID, error="the account is not active, or merged into another one")
    if mail.template == EXPIRING and (result := _untrue_warning(mail, found)):
        return result
    if found.merchant_name is None:
        return Result(status=Status.FAILED, error="the shop does not list the merchant")
    if found.is_customer_active and (found.customer_email or "").strip():
        return None
    why = {
        None: "the shop does not list the customer",
        False: "the customer is not active",
        True: "the customer has no address",
    }
    return Result(status=Status.PARKED, error=why[found.is_customer_active])


def _untrue_warning(mail: ClaimedMail, found: Addressee) -> Result | None:
    try:
        expires_at = datetime.fromisoformat(str(mail.payload.get("expires_at")))
    except ValueError:
        return None  # rendering says what is wrong with it
    if expires_at.tzinfo is None:
        return None
    if expires_at != found.expires_at or expires_at != found.warned_for:
        return Result(status=Status.VOID, error="the points have another date by now, or are gone")
    if expires_at <= found.as_of:
        # Its date is over, and it has not been delivered: the points stay, and the night's warnings name a later one.
        return Result(status=Status.PENDING, error="its date is over: expiry_warnings gives it a later one")
    return None


def mailbox(text: str) -> Mailbox | None:
    """Return the address to send to; None: it is none that mail can be sent to."""
    try:
        found = validate_email(text.strip(), check_deliverability=False)
    except EmailNotValidError:
        return None
    if found.ascii_email is not None:
        return Mailbox(address=found.ascii_email)
    return Mailbox(address=f"{found.local_part}@{found.ascii_domain}", is_utf8=True)


# --- what it looks like -----------------------------------------------------------------------------------


def compose(
    mail: ClaimedMail, content: Mail, recipient: Mailbox, *, merchant_name: str, settings: MailSettings, at: datetime
) -> OutgoingMail:
    """Return the message: the same mail is the same but for its date, however often it is sent.

    The encodings are the library's; the frame is written here. EmailMessage loses spaces of long names and subjects
    with other letters than ASCII (one random header in forty, Python 3.11) and takes 1.4 ms; MIMEMultipart takes 0.5,
    this 0.03 ms.
    """
    name = one_line(merchant_name, MAX_NAME) or settings.sender_name
    subject = one_line(content.subject, MAX_SUBJECT)
    identity = message_id(mail, settings.sender)
    # No line of quoted-printable has "=_" in it: no text, whoever wrote it, can end its part.
    boundary = f"=_{identity[1:].partition('@')[0]}"
    lines = [
        f"From: {_from(name, settings.sender)}",
        # Validated, so without white space.
        f"To: {recipient.address}",
        f"Subject: {_encoded(subject, 'Subject')}",
        f"Date: {format_datetime(at)}",
        f"Message-ID: {identity}",
        # No answer by a machine, such as "out of office", comes back.
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/alternative;\r\n boundary="{boundary}"',
        "",
        *_part("plain", content.text, boundary),
        *_part("html", content.html, boundary),
        f"--{boundary}--",
        "",
    ]
    return OutgoingMail(
        merchant_id=mail.merchant_id,
        notification_id=mail.notification_id,
        sender=settings.sender,
        recipient=recipient,
        subject=subject,
        text=content.text,
        content="\r\n".join(lines).encode(),
    )


def message_id(mail: ClaimedMail, sender: str) -> str:
    """Return a Message-ID that says the mail's number, and is its own in every installation; nothing about people.

    The key is part of it: a warning that gets a later date is another mail.
    """
    facts = "\0".join((mail.merchant_id, str(mail.notification_id), mail.dedupe_key, mail.created_at.isoformat()))
    return f"<{mail.notification_id}.{sha256(facts.encode()).hexdigest()[:32]}@{sender.rpartition('@')[2]}>"


# Merchants and their subjects come back with every mail of a page.
@lru_cache(maxsize=1_000)
def _from(name: str, address: str) -> str:
    return formataddr((name, address)) if name.isascii() else f"{_encoded(name, 'From')} <{address}>"


@lru_cache(maxsize=1_000)
def _encoded(text: str, header: str) -> str:
    """Return a header's text in ASCII, on as many lines as it takes."""
    return Header(text, "us-ascii" if text.isascii() else "utf-8", header_name=header).encode(linesep="\r\n")


def _part(subtype: str, text: str, boundary: str) -> Iterator[str]:
    """Yield the lines of a text as quoted-printable: readable in a file, and no server needs to take eight bits."""
    yield f"--{boundary}"
    yield f'Content-Type: text/{subtype}; charset="utf-8"'
    yield "Content-Transfer-Encoding: quoted-printable"
    yield ""
    plain = re.sub(r"\r\n?", "\n", text)
    yield from quopri.encodestring(plain.encode()).decode("ascii").split("\n")


# --- what an answer means ---------------------------------------------------------------------------------


def status_after(stage: Stage, code: int, text: str) -> Status | None:
    """Return what becomes of a mail after a refusal; None: the answer is about the sender or the session, so about all.

    A recipient that is refused can't be reached by mail. One that is refused by a rule of the server (5.7.x: relaying
    denied, policy) may be right: that mail has failed, and can be tried again when the rule is corrected.
    """
    if code < 500:
        return Status.PENDING
    found = ENHANCED_CODE.match(text)
    subject, detail = (int(found[2]), int(found[3])) if found else (None, None)
    # Bad sequence, authentication wanted; bad address of the sender, which servers may say only now.
    if code in (502, 503, 530, 535, 538) or (subject == 1 and detail in (7, 8)):
        return None
    if stage is Stage.RECIPIENT:
        return Status.FAILED if subject == 7 else Status.PARKED
    return Status.PARKED if subject == 1 else Status.FAILED


def answer(code: int, text: str, *, recipient: str = "") -> str:
    """Return a server's answer on one line without any address: it is kept, logged and shown."""
    clean = without_addresses(text)
    local = recipient.rpartition("@")[0]
    if local:
        clean = re.sub(rf"(?<!\w){re.escape(local)}(?!\w)", "<address>", clean, flags=re.IGNORECASE)
    return one_line(f"{code} {clean}", MAX_ERROR)


def without_addresses(text: str) -> str:
    """Return `text` on one line with every e-mail address replaced."""
    return one_line(ADDRESS.sub("<address>", text), MAX_ERROR)
