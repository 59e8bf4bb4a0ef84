"""Where metrics are pushed: what LOYALTY_METRICS_PUSH_URL says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from loyalty_pipelines.domain.errors import ConfigurationError, LoyaltyError

URL_VARIABLE = "LOYALTY_METRICS_PUSH_URL"
EXPECTED = (
    "expected the address of a Pushgateway: http://HOST:9091 or https://USER:PASSWORD@HOST/PATH (characters such as "
    "'@', ':', '/', '#' or '?' in user and password are written %40, %3A, %2F, %23, %3F)"
)


@dataclass(frozen=True, kw_only=True)
class PushSettings:
    """A Pushgateway: its address without user and password, and those."""

    url: str
    user: str | None = None
    password: str = field(default="", repr=False)


class PushNotConfiguredError(ConfigurationError):
    """Nobody has said where metrics are pushed."""

    def __init__(self) -> None:
        super().__init__(f"{URL_VARIABLE} is not set: {EXPECTED}.")


class PushSettingsError(ConfigurationError):
    """The address can't be used; the text never shows it, because it may hold a password."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"{URL_VARIABLE} {problem}: {EXPECTED}.")


class PushFailedError(LoyaltyError):
    """The Pushgateway did not take the metrics."""

    def __init__(self, *, place: str, reason: str) -> None:
        super().__init__(
            f"The Pushgateway at {place} did not take the metrics: {reason}. Nothing else is harmed; the next push "
            f"brings them. Is it running, and does {URL_VARIABLE} name it?"
        )


def is_push_wanted(environment: Mapping[str, str]) -> bool:
    """Return whether somebody has said where metrics are pushed."""
    return bool(environment.get(URL_VARIABLE, "").strip())


def push_settings(environment: Mapping[str, str]) -> PushSettings:
    """Return the settings; raise `PushNotConfiguredError` without an address, `PushSettingsError` for a wrong one."""
    if not is_push_wanted(environment):
        raise PushNotConfiguredError
    parts = _split(environment[URL_VARIABLE].strip())
    if parts.scheme not in ("http", "https"):
        raise PushSettingsError("has no http:// or https:// at its beginning")
    if not parts.hostname:
        raise PushSettingsError("names no host")
    if parts.query or parts.fragment:
        raise PushSettingsError("has a '?' or '#' in it")
    place = parts.netloc.rpartition("@")[2]
    return PushSettings(
        url=f"{parts.scheme}://{place}{parts.path.rstrip('/')}",
        user=None if parts.username is None else unquote(parts.username),
        password=unquote(parts.password or ""),
    )


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        # Looked at here, because only a look raises.
        _ = parts.port
    except ValueError:
        # Not with its text, nor as its cause: it repeats the address.
        parts = None
    if parts is None or any(one.isspace() or not one.isprintable() for one in url):
        raise PushSettingsError("is no address")
    return parts
