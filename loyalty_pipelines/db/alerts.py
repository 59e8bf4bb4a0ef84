"""Alerts: problems, what was sent about them, channels, silences. The caller commits."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta

from sqlalchemy import Connection, RowMapping

from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.alert_watch import FailedJob, OpenFindings
from loyalty_pipelines.domain.alerts import (
    FORGOTTEN,
    REMEMBERED,
    ChannelHealth,
    Claimed,
    Problem,
    Severity,
    Silence,
    Source,
    State,
    due_event,
    is_silenced,
)

NOW = load("alerts/now")
LOOK = load("alerts/look")
LOCK_OBSERVER = load("alerts/lock_observer")
KNOWN = load("alerts/known")
ADD = load("alerts/add")
CHANGE = load("alerts/change")
UNSETTLED = load("alerts/unsettled")
LEASE = load("alerts/lease")
GIVE_BACK = load("alerts/give_back")
MARK = load("alerts/mark")
CLOSE = load("alerts/close")
OPEN_PROBLEM = load("alerts/open_problem")
WORK_LEFT = load("alerts/work_left")
CHANNELS = load("alerts/channels")
CHANNEL_WORKED = load("alerts/channel_worked")
CHANNEL_FAILED = load("alerts/channel_failed")
PROBLEMS = load("alerts/problems")
SILENCES = load("alerts/silences")
SILENCE = load("alerts/silence")
UNSILENCE = load("alerts/unsilence")
SINCE_LOOK = load("alerts/since_look")
OPEN_FINDINGS = load("alerts/open_findings")
FAILED_JOBS = load("alerts/failed_jobs")

PROBLEM = [one.name for one in fields(Problem)]
# How long a channel that failed is left alone: doubling. A P0 never waits long for one that works again.
FIRST_WAIT = timedelta(minutes=1)
LONGEST_WAIT = timedelta(minutes=15)


def look(conn: Connection, observer: str) -> datetime:
    """Note that the observer looks now and keep others of its name out until the commit; return the time."""
    return conn.execute(LOOK, {"observer": observer}).scalar_one()


def lock_observer(conn: Connection, observer: str) -> None:
    """Keep an observer out until the commit, without looking in its place."""
    conn.execute(LOCK_OBSERVER, {"observer": observer})


def since_look(conn: Connection, observer: str) -> timedelta | None:
    """Return how long ago the observer looked; None: never."""
    row = conn.execute(SINCE_LOOK, {"observer": observer}).one_or_none()
    return row.age if row else None


def known_problems(conn: Connection, sources: Collection[Source]) -> list[Problem]:
    """Return the open problems of these sources and those that ended lately, the newest first."""
    values = {"sources": [one.value for one in sources], "remembered": REMEMBERED, "forgotten": FORGOTTEN}
    return [_problem(row) for row in conn.execute(KNOWN, values).mappings()]


def store(conn: Connection, problem: Problem) -> None:
    """Store a new problem, or what is seen of one now."""
    values = {name: getattr(problem, name) for name in PROBLEM}
    values |= {"merchants": list(problem.merchants), "numbers": json.dumps(dict(problem.numbers))}
    conn.execute(ADD if problem.problem_id is None else CHANGE, values)


def claim(
    conn: Connection,
    *,
    sources: Collection[Source],
    remind_after: Mapping[Severity, timedelta | None],
    lease: timedelta,
) -> tuple[list[Claimed], datetime | None]:
    """Lease what somebody is to be told of now, of these sources; also return the time.

    It is this sender's with the commit.
    """
    rows = list(conn.execute(UNSETTLED, {"sources": [one.value for one in sources]}).mappings())
    due = {}
    for row in rows:
        problem = _problem(row)
        is_silent = is_silenced(
            problem, silenced_at=row["silenced_at"], silenced_until=row["silenced_until"], as_of=row["as_of"]
        )
        event = due_event(problem, as_of=row["as_of"], remind_after=remind_after, is_silent=is_silent)
        if event is not None:
            due[row["problem_id"]] = (problem, event)
    if not due:
        return [], None
    leased = conn.execute(LEASE, {"problem_ids": list(due), "lease": lease}).mappings()
    until = {row["problem_id"]: row["leased_until"] for row in leased}
    found = [
        Claimed(problem=problem, event=event, leased_until=until[problem_id])
        for problem_id, (problem, event) in due.items()
    ]
    return found, rows[0]["as_of"]


def mark(conn: Connection, claimed: Sequence[Claimed], *, channel: str) -> None:
    """Write that a channel took what was said about these."""
    values = {
        "problem_ids": [one.problem.problem_id for one in claimed],
        "events": [one.event.value for one in claimed],
        "severities": [one.problem.severity.value for one in claimed],
        "states": [one.problem.state.value for one in claimed],
        "findings": [one.problem.findings for one in claimed],
        "leased_until": claimed[0].leased_until,
        "channel": channel,
    }
    conn.execute(MARK, values)


def give_back(conn: Connection, claimed: Sequence[Claimed], *, is_unanswered: bool = False) -> None:
    """End the lease of what was not sent, or not answered: it is due as before."""
    values = {
        "problem_ids": [one.problem.problem_id for one in claimed],
        "leased_until": claimed[0].leased_until,
        "unanswered": int(is_unanswered),
    }
    conn.execute(GIVE_BACK, values)


def channel_health(conn: Connection) -> dict[str, ChannelHealth]:
    """Return the health of the channels that were tried, by name."""
    return {row["channel"]: ChannelHealth(**row) for row in conn.execute(CHANNELS).mappings()}


def record_success(conn: Connection, channel: str, *, note: str) -> None:
    """Remember that a channel took a message, and what it said beside."""
    conn.execute(CHANNEL_WORKED, {"channel": channel, "error": note or None})


def record_failure(conn: Connection, channel: str, *, error: str) -> None:
    """Remember that a channel did not take a message, and why (no secret)."""
    values = {"channel": channel, "error": error, "first_wait": FIRST_WAIT, "longest_wait": LONGEST_WAIT}
    conn.execute(CHANNEL_FAILED, values)


def find_problems(conn: Connection, *, is_all: bool, limit: int) -> list[Problem]:
    """Return the open problems, or all, the newest first."""
    values = {"is_all": is_all, "row_limit": limit}
    return [_problem(row) for row in conn.execute(PROBLEMS, values).mappings()]


def find_silences(conn: Connection, *, is_all: bool, limit: int) -> list[Silence]:
    """Return the silences that hold, or all, the newest first."""
    return [Silence(**row) for row in conn.execute(SILENCES, {"is_all": is_all, "row_limit": limit}).mappings()]


def silence(conn: Connection, name: str, *, time: timedelta, reason: str, actor: str) -> Silence:
    """Silence a problem for some time from now."""
    values = {"name": name, "time": time, "reason": reason, "actor": actor}
    return Silence(**conn.execute(SILENCE, values).mappings().one())


def unsilence(conn: Connection, name: str, *, actor: str) -> int:
    """End the silences over a problem; return how many there were."""
    return conn.execute(UNSILENCE, {"name": name, "actor": actor}).rowcount


def open_problem(conn: Connection, name: str) -> Problem | None:
    """Return the open problem of a name; None: there is none."""
    row = conn.execute(OPEN_PROBLEM, {"name": name}).mappings().one_or_none()
    return _problem(row) if row else None


def close(conn: Connection, name: str, *, source: Source, reason: str, actor: str) -> Problem | None:
    """End an open problem because somebody says so; None: there is none of this source. Lock its observer first."""
    values = {"name": name, "source": source.value, "reason": reason, "actor": actor}
    row = conn.execute(CLOSE, values).mappings().one_or_none()
    return _problem(row) if row else None


def idle_jobs(conn: Connection) -> frozenset[str]:
    """Return the jobs that run only when there is something to do, and have nothing to do."""
    return frozenset(row.job for row in conn.execute(WORK_LEFT) if not row.is_left)


def now(conn: Connection) -> datetime:
    """Return the time by PostgreSQL's clock."""
    return conn.execute(NOW).scalar_one()


def open_findings(conn: Connection) -> list[OpenFindings]:
    """Return the open findings of severity error by class."""
    return [OpenFindings(**row) for row in conn.execute(OPEN_FINDINGS).mappings()]


def failed_jobs(conn: Connection) -> list[FailedJob]:
    """Return the jobs whose newest attempt failed for some merchants."""
    return [FailedJob(**row) for row in conn.execute(FAILED_JOBS).mappings()]


def _problem(row: RowMapping) -> Problem:
    values = {name: row[name] for name in PROBLEM}
    told, told_state = values["notified_severity"], values["told_state"]
    values |= {
        "severity": Severity(values["severity"]),
        "merchants": tuple(values["merchants"]),
        "notified_severity": told and Severity(told),
        "state": State(values["state"]),
        "told_state": told_state and State(told_state),
    }
    return Problem(**values)
