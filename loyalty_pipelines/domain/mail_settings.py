"""How mails leave: what LOYALTY_MAIL_URL, LOYALTY_MAIL_FROM and LOYALTY_MAIL_PER_MINUTE say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import getaddresses
from enum import StrEnum
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from email_validator import EmailNotValidError, validate_email

from loyalty_pipelines.domain.errors import ConfigurationError

URL_VARIABLE = "LOYALTY_MAIL_URL"
FROM_VARIABLE = "LOYALTY_MAIL_FROM"
RATE_VARIABLE = "LOYALTY_MAIL_PER_MINUTE"
EXPECTED = (
    "expected smtp://USER:PASSWORD@HOST:587, smtps://USER:PASSWORD@HOST:465, folder:///PATH or console: "
    "(characters such as '@', ':', '/', '#' or '?' in user and password are written %40, %3A, %2F, %23, %3F)"
)
# Ten in a second: what providers allow a new customer, and a server of one's own takes easily.
DEFAULT_PER_MINUTE = 600
# For mails that go to a folder or the console and so to nobody.
DEFAULT_SENDER = "loyalty@localhost"


class Transport(StrEnum):
    """Where mails go."""

    SMTP = "smtp"
    SMTPS = "smtps"
    FOLDER = "folder"
    CONSOLE = "console"


@dataclass(frozen=True, kw_only=True)
class MailSettings:
    """Where mails go, whose they are, and how many a minute (None: as fast as they go)."""

    transport: Transport
    sender: str
    sender_name: str = ""
    per_minute: int | None = None
    host: str = ""
    port: int = 0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    is_encrypted: bool = True
    folder: Path | None = None

    @property
    def place(self) -> str:
        """Where mails go, for people; never with user or password."""
        if self.transport in (Transport.SMTP, Transport.SMTPS):
            return f"{self.host}:{self.port}"
        return str(self.folder) if self.transport is Transport.FOLDER else "the console"


class MailNotConfiguredError(ConfigurationError):
    """Nobody has said where mails go: they wait."""

    def __init__(self) -> None:
        super().__init__(
            f"{URL_VARIABLE} is not set, so mails wait: set it to your mail server "
            "(smtp://USER:PASSWORD@HOST:587, smtps://USER:PASSWORD@HOST:465), or to folder:///PATH or console: to try "
            f"without one; and {FROM_VARIABLE} to the sender's address."
        )


class MailSettingsError(ConfigurationError):
    """A mail setting can't be used; its text never shows what it is."""


def mail_settings(environment: Mapping[str, str]) -> MailSettings:
    """Return the settings; raise `MailNotConfiguredError` without a URL, `MailSettingsError` for what can't be used."""
    url = environment.get(URL_VARIABLE, "").strip()
    if not url:
        raise MailNotConfiguredError
    parts = _split(url)
    transport = Transport(parts.scheme)
    is_server = transport in (Transport.SMTP, Transport.SMTPS)
    name, sender = _sender(environment.get(FROM_VARIABLE, "").strip(), is_needed=is_server)
    per_minute = _per_minute(environment.get(RATE_VARIABLE, "").strip(), DEFAULT_PER_MINUTE if is_server else None)
    if not is_server:
        folder = _folder(parts) if transport is Transport.FOLDER else None
        return MailSettings(transport=transport, sender=sender, sender_name=name, per_minute=per_minute, folder=folder)
    user, password = parts.username, parts.password
    return MailSettings(
        transport=transport,
        sender=sender,
        sender_name=name,
        per_minute=per_minute,
        host=parts.hostname or "",
        port=parts.port or (465 if transport is Transport.SMTPS else 587),
        user=unquote(user) if user else None,
        password=unquote(password) if password else None,
        is_encrypted=_is_encrypted(parts, transport),
    )


def _split(url: str) -> SplitResult:
    """Return the parts of a URL that one of the transports can use."""
    try:
        parts = urlsplit(url)
        is_port_usable = parts.port != 0
    except ValueError:
        # Its text shows a part of the URL, which may be the password.
        raise MailSettingsError(f"{URL_VARIABLE} can't be read: {EXPECTED}.") from None
    if parts.scheme not in list(Transport):
        raise MailSettingsError(f"{URL_VARIABLE} begins with none of the four ways to send: {EXPECTED}.")
    if parts.scheme in (Transport.SMTP, Transport.SMTPS):
        if not parts.hostname or parts.path not in ("", "/") or parts.fragment or not is_port_usable:
            raise MailSettingsError(f"{URL_VARIABLE} names no server, or more than one: {EXPECTED}.")
        if bool(parts.username) != bool(parts.password):
            raise MailSettingsError(f"{URL_VARIABLE} has a user or a password, not both: {EXPECTED}.")
    elif parts.scheme == Transport.CONSOLE and url.removeprefix("console:") not in ("", "//"):
        raise MailSettingsError(f"{URL_VARIABLE} has more than 'console:': {EXPECTED}.")
    return parts


def _is_encrypted(parts: SplitResult, transport: Transport) -> bool:
    options = parse_qsl(parts.query, keep_blank_values=True)
    if options == [("tls", "none")] and transport is Transport.SMTP:
        return False
    if options:
        raise MailSettingsError(
            f"{URL_VARIABLE} has options after '?': expected none, or tls=none with smtp:// for a server that needs "
            "no encryption, such as one on the same machine."
        )
    return True


def _folder(parts: SplitResult) -> Path:
    path = unquote(parts.path)
    if parts.netloc or parts.query or parts.fragment or not path.startswith("/") or "\0" in path:
        raise MailSettingsError(f"{URL_VARIABLE} names no absolute path: expected folder:///var/spool/loyalty-mails.")
    return Path(path)


def _sender(text: str, *, is_needed: bool) -> tuple[str, str]:
    """Return name and address of LOYALTY_MAIL_FROM."""
    if not text and not is_needed:
        return "", DEFAULT_SENDER
    found_addresses = getaddresses([text])
    name, address = found_addresses[0] if len(found_addresses) == 1 else ("", "")
    try:
        # A sender within the house, such as loyalty@intranet, is the operator's choice.
        found = validate_email(
            address, check_deliverability=False, globally_deliverable=False, allow_smtputf8=False
        ).ascii_email
    except EmailNotValidError:
        found = None
    if not found or any(not one.isprintable() for one in text):
        raise MailSettingsError(
            f"{FROM_VARIABLE} {'is no address' if text else 'is not set'}: expected the sender of all mails, such as "
            "loyalty@example.com or Example Shops <loyalty@example.com>."
        )
    return name, found


def _per_minute(text: str, default: int | None) -> int | None:
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:10]) <= 1_000_000):
        raise MailSettingsError(f"{RATE_VARIABLE} is no whole number from 1 to 1000000: it is how many mails a minute.")
    return int(text)
