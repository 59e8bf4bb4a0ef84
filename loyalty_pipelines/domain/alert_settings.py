"""Where alerts go: what the LOYALTY_ALERT_* variables say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urlsplit

from loyalty_pipelines.domain.alert_messages import Links
from loyalty_pipelines.domain.alerts import Severity
from loyalty_pipelines.domain.errors import ConfigurationError
from loyalty_pipelines.domain.mail_settings import (
    MailNotConfiguredError,
    MailSettings,
    MailSettingsError,
    mail_settings,
)
from loyalty_pipelines.domain.notifications import Mailbox, mailbox

SLACK, WEBHOOK, EMAIL = "slack", "webhook", "email"
SLACK_VARIABLE = "LOYALTY_ALERT_SLACK_URL"
WEBHOOK_VARIABLE = "LOYALTY_ALERT_WEBHOOK_URL"
EMAIL_VARIABLE = "LOYALTY_ALERT_EMAIL_TO"
# In the order in which they are tried where nothing else is said.
VARIABLES = {SLACK: SLACK_VARIABLE, WEBHOOK: WEBHOOK_VARIABLE, EMAIL: EMAIL_VARIABLE}
REMIND_VARIABLE = "LOYALTY_ALERT_REMIND_HOURS"
DAGSTER_VARIABLE = "LOYALTY_DAGSTER_URL"
DOCS_VARIABLE = "LOYALTY_DOCS_URL"
# As a route: tracked, and told nobody.
NOWHERE = "none"
REMIND_AFTER: Mapping[Severity, timedelta | None] = {
    Severity.P0: timedelta(hours=1),
    Severity.P1: timedelta(hours=4),
    Severity.P2: timedelta(hours=24),
}
LONGEST_REMIND_HOURS = 24 * 365


class AlertNotConfiguredError(ConfigurationError):
    """Nobody has said where alerts go."""

    def __init__(self) -> None:
        super().__init__(
            f"No alert channel is configured, so nobody is told: set {SLACK_VARIABLE}, {WEBHOOK_VARIABLE} or "
            f"{EMAIL_VARIABLE} where Dagster runs (docs/alerts.md)."
        )


class AlertSettingsError(ConfigurationError):
    """Settings of alerts that can't be used; their values are in no text."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(" ".join(problems))


def route_variable(severity: Severity) -> str:
    """Return the variable that says where alerts of a severity go."""
    return f"LOYALTY_ALERT_{severity.value}"


@dataclass(frozen=True, kw_only=True)
class AlertSettings:
    """The channels that can be used, in which order for which severity, and what is wrong with the rest.

    One setting that can't be used must not silence the channels that can: `problems` has its text.
    """

    slack_url: str = field(default="", repr=False)
    webhook_url: str = field(default="", repr=False)
    mail_to: tuple[Mailbox, ...] = field(default=(), repr=False)
    mail: MailSettings | None = None
    routes: Mapping[Severity, tuple[str, ...]]
    remind_after: Mapping[Severity, timedelta | None]
    links: Links
    problems: tuple[str, ...] = ()

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the channels that can be used."""
        usable = {SLACK: self.slack_url, WEBHOOK: self.webhook_url, EMAIL: self.mail_to and self.mail}
        return tuple(name for name, is_usable in usable.items() if is_usable)

    def require_channel(self) -> None:
        """Raise `AlertSettingsError` when what is set can't be used, `AlertNotConfiguredError` when nothing is."""
        if self.channels:
            return
        if self.problems:
            raise AlertSettingsError(self.problems)
        raise AlertNotConfiguredError


def alert_settings(environment: Mapping[str, str]) -> AlertSettings:
    """Return what can be used of the settings; never raises, so that one mistake costs one channel."""
    problems: list[str] = []
    slack_url = _url(environment, SLACK_VARIABLE, problems)
    webhook_url = _url(environment, WEBHOOK_VARIABLE, problems)
    mail_to = _recipients(environment, problems)
    mail = _mail(environment, problems) if mail_to else None
    usable = {SLACK: slack_url, WEBHOOK: webhook_url, EMAIL: mail_to and mail}
    channels = tuple(name for name, is_usable in usable.items() if is_usable)
    return AlertSettings(
        slack_url=slack_url,
        webhook_url=webhook_url,
        mail_to=mail_to,
        mail=mail,
        routes={one: _route(environment, one, channels, problems) for one in Severity},
        remind_after=_remind_after(environment, problems),
        links=Links(
            dagster=_value(environment, DAGSTER_VARIABLE).rstrip("/"),
            docs=_value(environment, DOCS_VARIABLE).rstrip("/"),
        ),
        problems=tuple(problems),
    )


def _value(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name, "").strip()


def _url(environment: Mapping[str, str], name: str, problems: list[str]) -> str:
    value = _value(environment, name)
    if not value:
        return ""
    try:
        parts = urlsplit(value)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or any(one.isspace() or not one.isprintable() for one in value):
        problems.append(f"{name} is no address: expected https://HOST/PATH.")
        return ""
    return value


def _recipients(environment: Mapping[str, str], problems: list[str]) -> tuple[Mailbox, ...]:
    found = []
    for number, text in enumerate(_list(_value(environment, EMAIL_VARIABLE)), start=1):
        if recipient := mailbox(text):
            found.append(recipient)
        else:
            problems.append(
                f"Entry {number} of {EMAIL_VARIABLE} is no e-mail address, and gets nothing: expected addresses like "
                "ops@example.com with commas between them. Correct it, then try 'loyalty alerts test'."
            )
    return tuple(found)


def _mail(environment: Mapping[str, str], problems: list[str]) -> MailSettings | None:
    try:
        return mail_settings(environment)
    except (MailNotConfiguredError, MailSettingsError) as error:
        problems.append(f"{EMAIL_VARIABLE} is set, but no mail can be sent: {error}")
        return None


def _route(
    environment: Mapping[str, str], severity: Severity, channels: Sequence[str], problems: list[str]
) -> tuple[str, ...]:
    """Return the channels of a severity in order of preference: all of them where nothing is said."""
    name = route_variable(severity)
    wanted = _list(_value(environment, name).lower())
    if not wanted:
        return tuple(channels)
    if wanted == [NOWHERE]:
        return ()
    for one in wanted:
        if one not in VARIABLES:
            problems.append(
                f"{name} names a channel that does not exist: expected {', '.join(VARIABLES)} or {NOWHERE}."
            )
        elif one not in channels and not _value(environment, VARIABLES[one]):
            problems.append(f"{name} names {one}, but {VARIABLES[one]} is not set.")
    usable = tuple(dict.fromkeys(one for one in wanted if one in channels))
    # Rather somebody else is told than nobody.
    return usable or tuple(channels)


def _remind_after(environment: Mapping[str, str], problems: list[str]) -> Mapping[Severity, timedelta | None]:
    words = _list(_value(environment, REMIND_VARIABLE))
    if not words:
        return REMIND_AFTER
    try:
        hours = [float(word) for word in words]
    except ValueError:
        hours = []
    if len(hours) not in (1, len(Severity)) or not all(0 <= one <= LONGEST_REMIND_HOURS for one in hours):
        problems.append(
            f"{REMIND_VARIABLE} can't be read: expected hours such as 4, or three of them such as 1,4,24 for P0, P1 "
            "and P2; 0 for no reminders."
        )
        return REMIND_AFTER
    each = hours * len(Severity) if len(hours) == 1 else hours
    return {severity: timedelta(hours=one) or None for severity, one in zip(Severity, each, strict=True)}


def _list(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]
