"""Mails on their way: which are sent, what one looks like, what a mail server's answer means for it."""

import quopri
import re
import unicodedata
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
# A night, and some hours for a run that begins late.
FRESH = timedelta(hours=26)
# So many mails of a merchant in a row that the server does not take are the merchant's matter, not theirs: its others
# wait for the next run, instead of using up their tries. So many merchants in a row are the server's matter.
REFUSED_IN_A_ROW = 10
ADDRESS = re.compile(r"\S*@\S+")
# Anywhere in an answer, also as (#5.7.1); no part of an IP address, and no release of a server's software (4.97.1).
ENHANCED_CODE = re.compile(r"(?<![\w.])[45]\.([0-7])\.(\d{1,3})(?![\w]|\.\d)")
# Replies that say of a recipient that there is none, where there is no enhanced code.
NO_SUCH_RECIPIENT = (550, 551, 553, 556)
# And in these words.
NOBODY = re.compile(
    r"unknown|no such|no mailbox|unroute?able|null mx|\bdo(?:es)? ?(?:not|n't) exist|not local"
    r"|invalid (?:recipient|mailbox|user|address)"
    r"|\b(?:user|mailbox|recipient|address)\b[^.;]{0,30}"
    r"\b(?:unavailable|disabled|inactive|not found|not exist|gone|invalid)\b",
    re.IGNORECASE,
)
# What says, without a code, that the server refuses us (a rule, a limit, a login) and not the recipient. "Recipient
# address rejected: User unknown" is about the recipient.
ABOUT_US = re.compile(
    r"relay|gateway|rcpthosts|\bauth|\blog ?in\b|logged in|prohibit|policy|policies|permi(?:t|ssion)|allow|denied"
    r"|\b(?:helo|ehlo)\b|\btls\b|starttls|limit|too many|block|black|spam|abuse|reputation|\brbl\b|dnsbl"
    r"|sender|\byour (?:ip|host|server|domain)\b|\b(?:spf|dkim|dmarc|ptr|rdns)\b|reverse dns"
    r"|(?<!\baddress )(?<!\brecipient )(?<!\buser )reject",
    re.IGNORECASE,
)


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
    """What the shop and the ledger say of a mail's merchant, customer and account now; None: they have none.

    `warned_key` is the key of the warning of the account's date. One of an earlier date than `least_expires_at` leaves
    less than the lead.
    """

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
    warned_key: str | None
    is_expiring: bool
    least_expires_at: datetime | None
    waits_since: datetime
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
    """This mail was not taken: PENDING if it may be later, FAILED or PARKED for good. No address in its text.

    `is_recipients`: it is certainly about this one recipient, and says nothing about mails to others.
    """

    def __init__(self, text: str, *, status: Status, is_recipients: bool = False) -> None:
        self.status = status
        self.is_recipients = is_recipients
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
    """What one run did, per merchant; what kept it from going on, and why mails of some merchants were left."""

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
class UnreachableMails:
    """How many of a merchant's mails were parked, and the reason of most of them."""

    merchant_id: str
    mails: int
    parked: int
    reason: str


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
    if mail.template == EXPIRING and (result := _untrue_warning(mail, found)):
        return result
    if not found.is_account_active:
        return Result(status=Status.VOID, error="the account is not active, or merged into another one")
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
    # The same date is another instant where the merchant's clock has changed since the mail was claimed.
    is_moved = expires_at != found.expires_at
    if found.expires_at != found.warned_for or (is_moved and mail.dedupe_key != found.warned_key):
        return Result(status=Status.VOID, error="the points have another date by now, or are gone")
    # A warning that has waited must not arrive when there is hardly time left: the points stay, and the night's
    # warnings name a later date. One that was written today is as late as somebody wanted it.
    is_late = found.least_expires_at is not None and expires_at < found.least_expires_at
    why = {
        "its date was written anew just now": is_moved,
        # Not void here: the night has to forget with it that the customer was told.
        "the account is not active": not found.is_account_active,
        "nothing expires at the merchant at the moment": not found.is_expiring,
        "its date is too near, or over: expiry_warnings gives it a later one": expires_at <= found.as_of
        or (is_late and found.waits_since < found.as_of - FRESH),
    }
    return next((Result(status=Status.PENDING, error=reason) for reason, is_so in why.items() if is_so), None)


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
    return formataddr((name, address)) if _is_plain(name) else f"{_encoded(name, 'From')} <{address}>"


@lru_cache(maxsize=1_000)
def _encoded(text: str, header: str) -> str:
    """Return a header's text in ASCII, on as many lines as it takes."""
    return Header(text, "us-ascii" if _is_plain(text) else "utf-8", header_name=header).encode(linesep="\r\n")


def _is_plain(text: str) -> bool:
    """Return whether a header can have the text as it is: "=?" would begin what mail programs decode."""
    return text.isascii() and "=?" not in text


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

    Parked is only who certainly can't be reached by mail, since points expire then without a warning. Whoever is
    refused by a rule, a limit or a fault of the server may be right: that mail has failed, and can be tried again when
    the cause is corrected.
    """
    if code < 500:
        return Status.PENDING
    subject, detail = _enhanced_code(text)
    # Bad sequence, authentication wanted; bad address of the sender, which servers may say only now.
    if code in (502, 503, 530, 535, 538) or (subject == 1 and detail in (7, 8)):
        return None
    if stage is Stage.CONTENT:
        return Status.PARKED if subject == 1 and detail != 0 else Status.FAILED
    if subject is None or (subject in (1, 2) and detail == 0):
        # No code, or one that says "something else about the address": the words have to.
        words = ADDRESS.sub(" ", text)
        is_nobody = code in NO_SUCH_RECIPIENT and NOBODY.search(words) and not ABOUT_US.search(words)
        return Status.PARKED if is_nobody else Status.FAILED
    # 5.4.1 is how Exchange Online says that it does not know the recipient.
    return Status.PARKED if subject in (1, 2) or (subject, detail) == (4, 1) else Status.FAILED


def is_recipients_matter(status: Status, text: str) -> bool:
    """Return whether the refusal that means `status` is certainly about its recipient: 5.1.x or 5.2.x says so."""
    subject, detail = _enhanced_code(text)
    return status is Status.PARKED and subject in (1, 2) and detail != 0


def _enhanced_code(text: str) -> tuple[int | None, int | None]:
    """Return subject and detail of the first enhanced code (RFC 3463) in an answer."""
    found = ENHANCED_CODE.search(text)
    return (int(found[1]), int(found[2])) if found else (None, None)


def answer(code: int, text: str, *, recipient: str = "") -> str:
    """Return a server's answer on one line without any address: it is kept, logged and shown."""
    # One letter with its accent or two: a server may write the address otherwise than it was given it.
    clean = without_addresses(unicodedata.normalize("NFC", text))
    local = unicodedata.normalize("NFC", recipient.rpartition("@")[0])
    if local:
        clean = re.sub(rf"(?<!\w){re.escape(local)}(?!\w)", "<address>", clean, flags=re.IGNORECASE)
    return one_line(f"{code} {clean}", MAX_ERROR)


def without_addresses(text: str) -> str:
    """Return `text` on one line with every e-mail address replaced."""
    return one_line(ADDRESS.sub("<address>", text), MAX_ERROR)
