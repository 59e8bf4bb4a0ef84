"""Alerts in words: for people, for Slack, for programs; and what takes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import groupby
from typing import Any, Protocol

from loyalty_pipelines.domain.alerts import Claimed, Event, Problem, Severity, clean
from loyalty_pipelines.domain.errors import LoyaltyError

# A message names so many problems in full, and so many more by their title.
IN_FULL = 10
IN_SHORT = 40
# Discord takes 2,000 characters, Rocket.Chat 5,000.
LONGEST_SHORT_FORM = 1_900
SCHEMA_VERSION = 1


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
    """One message about one or many problems: for people, for Slack, for programs, and in few words."""

    subject: str
    text: str
    slack: str
    # Subject and titles: for what does not take the whole.
    short: str
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


class UnansweredError(ChannelError):
    """A message was sent, and nobody knows whether it was taken."""


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
        short=_short_form(subject, [_head(one) for one in ordered] if len(ordered) > 1 else []),
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
        short=_slack(text),
        document={"version": SCHEMA_VERSION, "subject": subject, "severity": None, "alerts": []},
        key=sha256(f"test {channel} {as_of.isoformat()}".encode()).hexdigest()[:32],
        at=as_of,
    )


def _short_form(subject: str, heads: Sequence[str]) -> str:
    """Return a subject and as many titles as the smallest channel takes."""
    lines = [_slack(subject)]
    for number, head in enumerate(heads):
        rest = f"and {len(heads) - number} more: 'loyalty alerts list' has all."
        if len("\n".join([*lines, _slack(head), rest])) > LONGEST_SHORT_FORM:
            lines.append(rest)
            break
        lines.append(_slack(head))
    return "\n".join(lines)[:LONGEST_SHORT_FORM]


def _severity(claimed: Claimed) -> Severity:
    """Return at which severity something is said: of what is over, the worst that was announced."""
    problem = claimed.problem
    return (problem.notified_severity or problem.severity) if claimed.event is Event.ENDED else problem.severity


def _rank(claimed: Claimed) -> tuple[bool, Severity, datetime, str]:
    return claimed.event is Event.ENDED, _severity(claimed), claimed.problem.started_at, claimed.problem.name


def _key(claimed: Claimed) -> str:
    """Return what is the same of two messages about the same: a receiver can drop the second."""
    problem = claimed.problem
    number: object = _severity(claimed).value
    if claimed.event is Event.REMINDER:
        number = problem.reminders + 1
    elif claimed.event is Event.WORSE:
        # It gets worse more than once, and what was not marked as told can be worse still.
        number = f"{problem.times_worse + 1}/{number}/{problem.findings or 0:g}"
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
        return [*lines, f"Closed by hand: {clean(problem.close_reason)}"] if problem.close_reason else lines
    if problem.detail:
        lines.append(problem.detail)
    if problem.merchants:
        more = problem.merchants_total - len(problem.merchants)
        lines.append(f"Merchants: {', '.join(problem.merchants)}{f' and {more} more' if more > 0 else ''}")
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
        return f"Since {start} UTC ({span(as_of - problem.started_at)})."
    return f"From {start} to {problem.ended_at:%Y-%m-%d %H:%M} UTC ({span(problem.ended_at - problem.started_at)})."


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
        "merchants_total": max(problem.merchants_total, len(problem.merchants)),
        "numbers": dict(problem.numbers),
        "started_at": problem.started_at.isoformat(),
        "ended_at": problem.ended_at.isoformat() if problem.ended_at else None,
        "reminders": problem.reminders + (claimed.event is Event.REMINDER),
        "runbook": links.to_runbook(problem.runbook),
        "dagster": links.to_dagster(problem.place) or None,
    }


def span(time: timedelta) -> str:
    """Return a time in the largest unit that says enough."""
    minutes = max(0, round(time.total_seconds() / 60))
    if minutes < 120:
        return f"{minutes} min"
    hours = round(minutes / 60)
    return f"{hours} h" if hours < 72 else f"{round(hours / 24)} days"
