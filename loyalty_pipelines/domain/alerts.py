"""Alerts: what a problem is, and when somebody is told of it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from math import isfinite

from loyalty_pipelines.domain.errors import LoyaltyError
from loyalty_pipelines.domain.mail_templates import one_line
from loyalty_pipelines.domain.notifications import ADDRESS

# A problem has to stay away for so long before it counts as over, and for twice as long each time it came back within a
# day: whatever flaps becomes one problem.
QUIET = timedelta(minutes=5)
LONGEST_QUIET = timedelta(hours=2)
REMEMBERED = timedelta(days=1)
# Longer nobody may look away from the worst.
LONGEST_P0_SILENCE = timedelta(hours=24)
MAX_DETAIL = 600
MAX_MERCHANTS = 10
# A failed run of so long ago, and what somebody said of it, is forgotten.
FORGOTTEN = timedelta(days=7)
# So often a message is sent whose arrival nobody knows: then it counts as told.
MOST_UNANSWERED = 3
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
    # How many there are, if more than are named.
    merchants_total: int = 0
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
    state: State = State.RED
    title: str
    detail: str
    merchants: tuple[str, ...]
    merchants_total: int = 0
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
    told_state: State | None = None
    told_findings: float | None = None
    times_worse: int = 0
    reminders: int = 0
    # How often what is due was sent without an answer.
    unanswered: int = 0
    end_notified_at: datetime | None = None
    closed_at: datetime | None = None
    closed_by: str | None = None
    close_reason: str | None = None

    @property
    def findings(self) -> float | None:
        """How many findings there are; None: it is not known, or it has none."""
        return self.numbers.get("findings")


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

    @property
    def is_nobody_told(self) -> bool:
        """Whether channels were asked and none took anything."""
        return bool(self.failures and self.unsent and not self.sent)


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


class NotClosableError(LoyaltyError):
    """A problem was to be closed that isn't there, or that ends by itself."""

    def __init__(self, name: str, *, is_open: bool) -> None:
        super().__init__(
            f"{name} is no failed run, and only those are closed by hand: it ends when it is seen no more. "
            f"'loyalty alerts silence {name}' keeps it quiet for some time."
            if is_open
            else f"There is no open problem {name!r}: 'loyalty alerts list' shows what is open."
        )


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

    `known` are the open problems and those that ended lately, the newest first. A run that failed before the last
    problem of its job was over is not looked at again: it was made good for, or nothing was left to do, or somebody
    closed it.
    """
    over: dict[str, datetime] = {}
    for one in known:
        if one.source == Source.JOB and one.ended_at is not None:
            over[one.name] = max(one.ended_at, over.get(one.name, one.ended_at))
    open_ones = {one.name: one for one in known if one.ended_at is None}
    ended: dict[str, Problem] = {}
    for one in known:
        if one.ended_at is not None and one.ended_at > as_of - REMEMBERED:
            ended.setdefault(one.name, one)
    changed: list[Problem] = []
    names: set[str] = set()
    for graded in seen:
        name = graded.symptom.name
        if graded.symptom.source is Source.JOB and name in over and graded.symptom.since <= over[name]:
            continue
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
        state=symptom.state,
        title=clean(symptom.title),
        detail=clean(symptom.detail),
        merchants=tuple(clean(one) for one in symptom.merchants[:MAX_MERCHANTS]),
        merchants_total=max(len(symptom.merchants), symptom.merchants_total),
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
        state=now.state,
        title=now.title,
        detail=now.detail,
        merchants=now.merchants,
        merchants_total=now.merchants_total,
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
    if problem.severity < problem.notified_severity or _is_known_now(problem) or _has_more_findings(problem):
        return Event.WORSE
    wait = remind_after[problem.severity]
    return Event.REMINDER if wait and as_of >= problem.last_notified_at + wait else None


def _has_more_findings(problem: Problem) -> bool:
    """Return whether there are more than were told: an old one that is left must not hide the next one."""
    return problem.told_findings is not None and (problem.findings or 0) > problem.told_findings


def _is_known_now(problem: Problem) -> bool:
    """Return whether what could not be looked at when somebody was told is red for certain now."""
    return problem.told_state is State.BROKEN and problem.state is State.RED


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
