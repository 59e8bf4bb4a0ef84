"""Alerts: what a problem is, when somebody is told of it, and in which words."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from itertools import groupby
from math import isfinite
from typing import Any, Protocol

from loyalty_pipelines.domain.errors import LoyaltyError
from loyalty_pipelines.domain.mail_templates import one_line
from loyalty_pipelines.domain.notifications import ADDRESS
from loyalty_pipelines.domain.queue import QueueVerdict

# A problem has to stay away for so long before it counts as over, and for twice as long each time it came back within a
# day: whatever flaps becomes one problem.
QUIET = timedelta(minutes=5)
LONGEST_QUIET = timedelta(hours=2)
REMEMBERED = timedelta(days=1)
# Longer nobody may look away from the worst.
LONGEST_P0_SILENCE = timedelta(hours=24)
# A message names so many problems in full, and so many more by their title.
IN_FULL = 10
IN_SHORT = 40
MAX_DETAIL = 600
MAX_MERCHANTS = 10
SCHEMA_VERSION = 1
# The names of problems that are no check, job or asset.
SILENT_SENSOR = "alerts_sensor"
TABLE_PROBLEM = "alert_table"
# Checks whose newest result says nothing of today.
OLD_CHECKS = "old_checks"


class Severity(StrEnum):
    """How bad: P0 now, P1 today, P2 this week. The first is the worst."""

    P0 = "P0"
    P1 = "P1"
    P2 = "P2"


class State(StrEnum):
    """What is wrong: red, yellow, or nobody knows, because what looks could not."""

    RED = "red"
    YELLOW = "yellow"
    BROKEN = "could not run"


class Source(StrEnum):
    """Where a problem is seen."""

    CHECK = "check"
    JOB = "job"
    FRESHNESS = "freshness"
    # The look from outside Dagster: 'loyalty alerts check'.
    WATCH = "watch"


class Event(StrEnum):
    """What there is to be told of a problem."""

    STARTED = "started"
    WORSE = "worse"
    REMINDER = "reminder"
    ENDED = "ended"
    TEST = "test"


@dataclass(frozen=True, kw_only=True)
class Symptom:
    """What an observer sees now: ids and numbers, nothing personal; `place` is its page in Dagster without the host."""

    name: str
    source: Source
    state: State
    title: str
    detail: str = ""
    since: datetime
    merchants: tuple[str, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
    place: str = ""
    # Of a check: the asset that it is of, such as shop/orders.
    asset: str = ""


@dataclass(frozen=True, kw_only=True)
class Sight:
    """All that an observer sees, and what it can't tell at the moment: such a problem neither starts nor ends."""

    symptoms: tuple[Symptom, ...] = ()
    undecided: frozenset[str] = frozenset()

    def plus(self, other: "Sight") -> "Sight":
        """Return both together."""
        return Sight(symptoms=self.symptoms + other.symptoms, undecided=self.undecided | other.undecided)


@dataclass(frozen=True, kw_only=True)
class Graded:
    """A symptom with what the table says of it."""

    symptom: Symptom
    severity: Severity
    runbook: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A problem from its start to its end, and what was sent about it. `problem_id` is None before it is stored."""

    problem_id: int | None = None
    name: str
    source: str
    severity: Severity
    title: str
    detail: str
    merchants: tuple[str, ...]
    numbers: Mapping[str, float]
    runbook: str
    place: str
    started_at: datetime
    gone_since: datetime | None = None
    returns: int = 0
    ended_at: datetime | None = None
    notified_severity: Severity | None = None
    first_notified_at: datetime | None = None
    last_notified_at: datetime | None = None
    last_channel: str | None = None
    told_findings: float | None = None
    reminders: int = 0
    end_notified_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Silence:
    """Somebody's decision not to be told of a problem for some time."""

    silence_id: int
    name: str
    reason: str
    actor: str
    created_at: datetime
    until_at: datetime
    ended_at: datetime | None
    ended_by: str | None


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A problem that this sender has leased, and what to say of it; `leased_until` also says whose lease it is."""

    problem: Problem
    event: Event
    leased_until: datetime


@dataclass(frozen=True, kw_only=True)
class ChannelHealth:
    """Whether a channel works: `failures` in a row, the last `error`, and whether it is not to be tried yet."""

    channel: str
    succeeded_at: datetime | None
    failed_at: datetime | None
    failing_since: datetime | None
    failures: int
    error: str | None
    next_try_at: datetime | None
    is_waiting: bool


@dataclass(frozen=True, kw_only=True)
class ChannelState:
    """How a channel is, for people."""

    channel: str
    state: str
    failures: int = 0
    failing_since: datetime | None = None
    succeeded_at: datetime | None = None
    error: str | None = None

    @property
    def is_failing(self) -> bool:
        """Whether it did not take the last message that it was given."""
        return self.failures > 0

    @classmethod
    def of(cls, channel: str, health: "ChannelHealth | None", *, is_configured: bool) -> "ChannelState":
        """Return the state of a channel; what is not configured does not fail, whatever it did before."""
        if not is_configured:
            return cls(channel=channel, state="not configured")
        if health is None:
            return cls(channel=channel, state="not tried yet")
        return cls(
            channel=channel,
            state="fails" if health.failures else "works",
            failures=health.failures,
            failing_since=health.failing_since,
            succeeded_at=health.succeeded_at,
            error=health.error,
        )


@dataclass(frozen=True, kw_only=True)
class Announced:
    """What one round of sending did: messages and errors per channel, and how many problems are still to be told."""

    sent: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    unsent: int = 0


@dataclass(frozen=True, kw_only=True)
class OpenFindings:
    """How many findings of a class are open, at how many merchants, and since when."""

    subject: str
    kind: str
    findings: int
    merchants: int
    oldest_at: datetime


@dataclass(frozen=True, kw_only=True)
class FailedJob:
    """At how many merchants the newest attempt of a job failed, and since when."""

    job: str
    merchants: int
    oldest_at: datetime


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What the database alone says, asked from outside Dagster: who looks, and what is wrong.

    `sensor_age`: how long ago alerts_sensor looked; None: never.
    """

    as_of: datetime
    sensor_age: timedelta | None
    longest_age: timedelta
    queue: QueueVerdict
    findings: tuple[OpenFindings, ...]
    jobs: tuple[FailedJob, ...]
    failing_channels: tuple[str, ...]

    @property
    def is_sensor_silent(self) -> bool:
        """Whether nobody looks inside Dagster."""
        return self.sensor_age is None or self.sensor_age > self.longest_age

    @property
    def lines(self) -> list[str]:
        """What is wrong, a sentence each; none: nothing is."""
        found = [self._about_sensor()] if self.is_sensor_silent else []
        if self.queue.is_red:
            found.append(f"The reconciliation queue is red: {self.queue.description}")
        found += [
            f"{one.findings} open findings {one.kind} of {one.subject} at {one.merchants} merchants, since "
            f"{one.oldest_at:%Y-%m-%d %H:%M} UTC."
            for one in self.findings
        ]
        found += [f"The newest attempt of {one.job} failed at {one.merchants} merchants." for one in self.jobs]
        found += [f"The alert channel {name} fails: 'loyalty alerts test'." for name in self.failing_channels]
        return found

    def sight(self) -> Sight:
        """Return what alerts_sensor can't see: that it does not look. All else is told by it while it does."""
        if not self.is_sensor_silent:
            return Sight()
        symptom = Symptom(
            name=SILENT_SENSOR,
            source=Source.WATCH,
            state=State.RED,
            title="alerts_sensor does not look",
            detail=" ".join(self.lines),
            since=self.as_of - self.sensor_age if self.sensor_age else self.as_of,
        )
        return Sight(symptoms=(symptom,))

    def _about_sensor(self) -> str:
        when = f"has not looked for {_span(self.sensor_age)}" if self.sensor_age else "has never looked"
        return f"alerts_sensor {when}: is Dagster's daemon running, is the sensor on, do its ticks fail?"


@dataclass(frozen=True, kw_only=True)
class Links:
    """Under which addresses Dagster and the documents can be opened; '' where nobody said so."""

    dagster: str = ""
    docs: str = ""

    def to_dagster(self, place: str) -> str:
        """Return the address of a page of Dagster; '' without a host."""
        return f"{self.dagster}{place}" if self.dagster and place else ""

    def to_runbook(self, runbook: str) -> str:
        """Return where a runbook is: its address, or its path in the repository."""
        if not runbook or "://" in runbook:
            return runbook
        return f"{self.docs}/docs/{runbook}" if self.docs else f"docs/{runbook}"


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message about one or many problems: for people, for Slack, for programs."""

    subject: str
    text: str
    slack: str
    document: Mapping[str, Any]
    key: str
    at: datetime


class AlertChannel(Protocol):
    """A way to somebody who can do something."""

    def send(self, message: Message) -> str:
        """Return what there is to say when the message was taken; raise `ChannelError` when it was not."""
        ...


class ChannelError(LoyaltyError):
    """A channel did not take a message; its text has no secret in it."""


class AlertNotSentError(LoyaltyError):
    """No channel took the alerts: the tick fails, so that Dagster at least shows it."""

    def __init__(self, announced: Announced) -> None:
        self.announced = announced
        reasons = "; ".join(f"{channel}: {error}" for channel, error in announced.failures.items())
        super().__init__(
            f"Nobody was told of {announced.unsent} problems, because no channel took the message ({reasons}). It is "
            "tried again. 'loyalty alerts list' shows the problems, 'loyalty alerts test' tries the channels."
        )


class UnknownProblemError(LoyaltyError):
    """No problem can have this name."""

    def __init__(self, name: str, *, similar: Sequence[str]) -> None:
        self.name = name
        hint = f"did you mean {' or '.join(map(repr, similar))}?" if similar else "the table in docs/alerts.md has all."
        super().__init__(f"Nothing that alerts is called {name!r}: {hint}")


class SilenceTooLongError(LoyaltyError):
    """What can be P0 was to be silenced for more than a day."""

    def __init__(self, name: str) -> None:
        hours = int(LONGEST_P0_SILENCE.total_seconds() // 3600)
        super().__init__(
            f"{name} can be P0, and P0 is silenced for at most {hours} hours: say --hours {hours} or less, and again "
            "tomorrow if it must be."
        )


# --- from what is seen to problems ------------------------------------------------------------------------


def clean(text: str) -> str:
    """Return a text as an alert may have it: one line, no e-mail address, not too long."""
    return one_line(ADDRESS.sub("<address>", text[: 4 * MAX_DETAIL]), MAX_DETAIL)


def quiet_time(returns: int) -> timedelta:
    """Return for how long a problem has to stay away before it is over."""
    return min(QUIET * 2 ** min(returns, 10), LONGEST_QUIET)


def compare(
    known: Sequence[Problem], seen: Iterable[Graded], *, undecided: Collection[str], as_of: datetime
) -> list[Problem]:
    """Return what to store: problems that start, that look otherwise now, that are gone or back, that are over.

    `known` are the open problems and those that ended lately, the newest first.
    """
    open_ones = {one.name: one for one in known if one.ended_at is None}
    ended: dict[str, Problem] = {}
    for one in known:
        if one.ended_at is not None and one.ended_at > as_of - REMEMBERED:
            ended.setdefault(one.name, one)
    changed: list[Problem] = []
    names: set[str] = set()
    for graded in seen:
        name = graded.symptom.name
        names.add(name)
        before = open_ones.get(name)
        after = _updated(before, graded) if before else _started(graded, before=ended.get(name), as_of=as_of)
        if after != before:
            changed.append(after)
    for name, problem in open_ones.items():
        if name in names or name in undecided:
            continue
        if problem.gone_since is None:
            changed.append(replace(problem, gone_since=as_of))
        elif as_of - problem.gone_since >= quiet_time(problem.returns):
            changed.append(replace(problem, ended_at=problem.gone_since))
    return changed


def _started(graded: Graded, *, before: Problem | None, as_of: datetime) -> Problem:
    symptom = graded.symptom
    return Problem(
        name=symptom.name,
        source=symptom.source,
        severity=graded.severity,
        title=clean(symptom.title),
        detail=clean(symptom.detail),
        merchants=tuple(clean(one) for one in symptom.merchants[:MAX_MERCHANTS]),
        numbers={name: value for name, value in symptom.numbers.items() if isfinite(value)},
        runbook=graded.runbook,
        place=symptom.place,
        started_at=min(symptom.since, as_of),
        returns=before.returns + 1 if before else 0,
    )


def _updated(before: Problem, graded: Graded) -> Problem:
    now = _started(graded, before=None, as_of=before.started_at)
    return replace(
        before,
        severity=now.severity,
        title=now.title,
        detail=now.detail,
        merchants=now.merchants,
        numbers=now.numbers,
        runbook=now.runbook,
        place=now.place,
        gone_since=None,
        returns=before.returns + (before.gone_since is not None),
    )


# --- from problems to what is said ------------------------------------------------------------------------


def is_silenced(
    problem: Problem, *, silenced_at: datetime | None, silenced_until: datetime | None, as_of: datetime
) -> bool:
    """Return whether somebody has silenced the problem; a P0 never for longer than a day, whenever it became one."""
    if silenced_at is None or silenced_until is None or silenced_until <= as_of:
        return False
    return problem.severity is not Severity.P0 or as_of < silenced_at + LONGEST_P0_SILENCE


def due_event(
    problem: Problem, *, as_of: datetime, remind_after: Mapping[Severity, timedelta | None], is_silent: bool
) -> Event | None:
    """Return what is to be said of a problem now: one alert, one when it gets worse, reminders, one all-clear.

    Of what was never announced there is no all-clear. What was announced before it was silenced has one, too: somebody
    waits for it. While a problem is gone and not over yet, nothing is said.
    """
    if problem.ended_at is not None:
        is_told = problem.first_notified_at is None or problem.end_notified_at is not None
        return None if is_told else Event.ENDED
    if is_silent or problem.gone_since is not None:
        return None
    if problem.notified_severity is None or problem.last_notified_at is None:
        return Event.STARTED
    if problem.severity < problem.notified_severity or _has_more_findings(problem):
        return Event.WORSE
    wait = remind_after[problem.severity]
    return Event.REMINDER if wait and as_of >= problem.last_notified_at + wait else None


def _has_more_findings(problem: Problem) -> bool:
    """Return whether there are more than were told: an old one that is left must not hide the next one."""
    return problem.told_findings is not None and problem.numbers.get("findings", 0) > problem.told_findings


def route_of(
    claimed: Claimed, *, routes: Mapping[Severity, Sequence[str]], channels: Collection[str]
) -> tuple[str, ...]:
    """Return the channels to try for what is to be said, in order; none: it is not to be sent.

    An all-clear goes first to where the last message about the problem went.
    """
    problem = claimed.problem
    if claimed.event is not Event.ENDED:
        return tuple(routes[problem.severity])
    route = routes[problem.notified_severity or problem.severity]
    last = [one for one in channels if one == problem.last_channel]
    return tuple(dict.fromkeys([*last, *route]))


HEADS = {
    Event.STARTED: "",
    Event.WORSE: "worse: ",
    Event.REMINDER: "still: ",
    Event.ENDED: "over: ",
    Event.TEST: "test: ",
}


def message_about(claimed: Sequence[Claimed], *, links: Links, as_of: datetime) -> Message:
    """Return one message about all of these, the worst first."""
    ordered = sorted(claimed, key=_rank)
    in_full, rest = ordered[:IN_FULL], ordered[IN_FULL:]
    short = [_head(one) for one in rest[:IN_SHORT]]
    more = len(rest) - len(short)
    if more:
        short.append(f"and {more} more: 'loyalty alerts list' has all.")
    subject = _subject(ordered)
    blocks = ["\n".join(_lines(one, links=links, as_of=as_of)) for one in in_full]
    slack_blocks = ["\n".join(_slack_lines(one, links=links, as_of=as_of)) for one in in_full]
    head = [subject] if len(ordered) > 1 else []
    return Message(
        subject=subject,
        text="\n\n".join([*head, *blocks, *(["\n".join(short)] if short else [])]) + "\n",
        slack="\n\n".join([*map(_slack, head), *slack_blocks, *(["\n".join(map(_slack, short))] if short else [])]),
        document={
            "version": SCHEMA_VERSION,
            "subject": subject,
            "severity": min(_severity(one) for one in ordered).value,
            "alerts": [_document(one, links=links) for one in ordered],
        },
        key=sha256("\n".join(_key(one) for one in ordered).encode()).hexdigest()[:32],
        at=as_of,
    )


def message_of_test(*, as_of: datetime, channel: str) -> Message:
    """Return the message of 'loyalty alerts test'."""
    subject = "Loyalty Pipelines: test of an alert channel"
    text = f"{subject} ({channel}). Nothing is wrong: alerts would arrive here."
    return Message(
        subject=subject,
        text=f"{text}\n",
        slack=_slack(text),
        document={"version": SCHEMA_VERSION, "subject": subject, "severity": None, "alerts": []},
        key=sha256(f"test {channel} {as_of.isoformat()}".encode()).hexdigest()[:32],
        at=as_of,
    )


def _severity(claimed: Claimed) -> Severity:
    """Return at which severity something is said: of what is over, the worst that was announced."""
    problem = claimed.problem
    return (problem.notified_severity or problem.severity) if claimed.event is Event.ENDED else problem.severity


def _rank(claimed: Claimed) -> tuple[bool, Severity, datetime, str]:
    return claimed.event is Event.ENDED, _severity(claimed), claimed.problem.started_at, claimed.problem.name


def _key(claimed: Claimed) -> str:
    """Return what is the same of two messages about the same: a receiver can drop the second."""
    problem = claimed.problem
    number = problem.reminders + 1 if claimed.event is Event.REMINDER else _severity(claimed).value
    return f"{problem.problem_id}/{claimed.event.value}/{number}"


def _subject(ordered: Sequence[Claimed]) -> str:
    if len(ordered) == 1:
        return _head(ordered[0])
    names = ", ".join(one.problem.name for one in ordered[:3]) + (", ..." if len(ordered) > 3 else "")
    if all(one.event is Event.ENDED for one in ordered):
        return f"{len(ordered)} problems are over: {names}"
    current = [one for one in ordered if one.event is not Event.ENDED]
    counts = [f"{len(list(group))} {severity.value}" for severity, group in groupby(current, key=_severity)]
    over = f", {len(ordered) - len(current)} over" if len(ordered) > len(current) else ""
    return f"{len(current)} problem{'s' if len(current) > 1 else ''} ({', '.join(counts)}{over}): {names}"


def _head(claimed: Claimed) -> str:
    return f"{_severity(claimed).value} {HEADS[claimed.event]}{claimed.problem.title}"


def _lines(claimed: Claimed, *, links: Links, as_of: datetime) -> list[str]:
    problem = claimed.problem
    lines = [_head(claimed), _when(problem, as_of=as_of)]
    if problem.ended_at is not None:
        return lines
    if problem.detail:
        lines.append(problem.detail)
    if problem.merchants:
        lines.append(f"Merchants: {', '.join(problem.merchants)}")
    if runbook := links.to_runbook(problem.runbook):
        lines.append(f"What to do: {runbook}")
    if page := links.to_dagster(problem.place):
        lines.append(f"In Dagster: {page}")
    return lines


def _slack_lines(claimed: Claimed, *, links: Links, as_of: datetime) -> list[str]:
    first, *others = _lines(claimed, links=links, as_of=as_of)
    return [f"*{_slack(first)}*", *map(_slack, others)]


def _slack(text: str) -> str:
    """Return a text as Slack takes it: three characters would begin links, mentions and entities."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _when(problem: Problem, *, as_of: datetime) -> str:
    start = f"{problem.started_at:%Y-%m-%d %H:%M}"
    if problem.ended_at is None:
        return f"Since {start} UTC ({_span(as_of - problem.started_at)})."
    return f"From {start} to {problem.ended_at:%Y-%m-%d %H:%M} UTC ({_span(problem.ended_at - problem.started_at)})."


def _span(time: timedelta) -> str:
    minutes = max(0, round(time.total_seconds() / 60))
    if minutes < 120:
        return f"{minutes} min"
    hours = round(minutes / 60)
    return f"{hours} h" if hours < 72 else f"{round(hours / 24)} days"


def _document(claimed: Claimed, *, links: Links) -> dict[str, Any]:
    problem = claimed.problem
    return {
        "key": _key(claimed),
        "event": claimed.event.value,
        "severity": _severity(claimed).value,
        "name": problem.name,
        "source": problem.source,
        "title": problem.title,
        "detail": problem.detail,
        "merchants": list(problem.merchants),
        "numbers": dict(problem.numbers),
        "started_at": problem.started_at.isoformat(),
        "ended_at": problem.ended_at.isoformat() if problem.ended_at else None,
        "reminders": problem.reminders + (claimed.event is Event.REMINDER),
        "runbook": links.to_runbook(problem.runbook),
        "dagster": links.to_dagster(problem.place) or None,
    }
