"""The loop around alerts: look, claim, commit, send, mark. No transaction is open while a channel is asked."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db import alerts
from loyalty_pipelines.db.engine import reading, with_retries
from loyalty_pipelines.db.queue import queue_summary
from loyalty_pipelines.domain.alert_messages import AlertChannel, ChannelError, UnansweredError, message_about
from loyalty_pipelines.domain.alert_settings import NOWHERE, AlertSettings
from loyalty_pipelines.domain.alert_table import AlertTable
from loyalty_pipelines.domain.alert_watch import Watch
from loyalty_pipelines.domain.alerts import (
    MOST_UNANSWERED,
    Announced,
    Claimed,
    NotClosableError,
    Problem,
    Sight,
    Source,
    compare,
    route_of,
)
from loyalty_pipelines.domain.queue import QueueVerdict, judge_queue

SENSOR = "alerts_sensor"
WATCHDOG = "watchdog"
# What each observer decides about, and what it tells. The sensor that looks sees that it is not silent.
SOURCES = {
    SENSOR: tuple(Source),
    WATCHDOG: (Source.WATCH,),
}
# Longer than any round of sending: what is on its way is nobody else's.
LEASE = timedelta(minutes=3)
# A round that took so long begins no other message. With the last one it ends within 45 seconds: a tick has 60.
MAX_SECONDS = 25.0


def observe(engine: Engine, observer: str, sight: Sight, table: AlertTable) -> int:
    """Store what an observer sees as problems; return how many are open. Safe to repeat, and twice at once."""
    return with_retries(partial(_observe, engine, observer, sight, table))


def _observe(engine: Engine, observer: str, sight: Sight, table: AlertTable) -> int:
    with engine.begin() as conn:
        as_of = alerts.look(conn, observer)
        if observer != SENSOR:
            # It writes what the sensor writes, too.
            alerts.lock_observer(conn, SENSOR)
        known = alerts.known_problems(conn, SOURCES[observer])
        for problem in compare(known, table.graded(sight.symptoms), undecided=sight.undecided, as_of=as_of):
            alerts.store(conn, problem)
        return sum(one.ended_at is None for one in alerts.known_problems(conn, SOURCES[observer]))


def close_problem(engine: Engine, name: str, *, reason: str, actor: str) -> Problem:
    """End the open problem of a failed run: it comes back with the next run that fails.

    Raise `NotClosableError` when there is none, or what says it would only say it again.
    """
    with engine.begin() as conn:
        alerts.lock_observer(conn, SENSOR)
        closed = alerts.close(conn, name, source=Source.JOB, reason=reason, actor=actor)
        if closed is None:
            raise NotClosableError(name, is_open=alerts.open_problem(conn, name) is not None)
        return closed


def idle_jobs(engine: Engine) -> frozenset[str]:
    """Return the jobs that run only when there is something to do, and have nothing to do; none if that can't be read.

    A table that is broken must not keep anybody from being told of it.
    """
    with suppress(DBAPIError), reading(engine) as conn:
        return alerts.idle_jobs(conn)
    return frozenset()


def waiting_updates(engine: Engine) -> QueueVerdict:
    """Return what the reconciliation queue says now, by the rule of its check."""
    with reading(engine) as conn:
        return judge_queue(queue_summary(conn))


def watch(engine: Engine, *, longest_age: timedelta) -> Watch:
    """Return what the database alone says; needs no Dagster."""
    with reading(engine, is_one_snapshot=True) as conn:
        return Watch(
            as_of=alerts.now(conn),
            sensor_age=alerts.since_look(conn, SENSOR),
            longest_age=longest_age,
            queue=judge_queue(queue_summary(conn)),
            findings=tuple(alerts.open_findings(conn)),
            jobs=tuple(alerts.failed_jobs(conn)),
            failing_channels=tuple(name for name, one in alerts.channel_health(conn).items() if one.failures),
        )


def announce(
    engine: Engine,
    channels: Mapping[str, AlertChannel],
    *,
    settings: AlertSettings,
    observer: str = SENSOR,
    lease: timedelta = LEASE,
    max_seconds: float = MAX_SECONDS,
) -> Announced:
    """Tell somebody of what is due and the observer's: one message for all that goes the same way.

    The first channel of a route that takes it gets it; one that failed lately is left out until its time has come. What
    no channel takes is due again. Two senders at once send nothing twice; one that dies between sending and marking
    sends one message again, when its lease has ended. What was sent and not answered is sent three times, or six while
    another channel of its route is left out: then it counts as told.

    Only the sensor knows and remembers which channels fail: another machine's network says nothing of its own.
    """
    return _Round(
        engine, channels, settings=settings, observer=observer, lease=lease, max_seconds=max_seconds
    ).announce()


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What became of one message: whether a channel took it; if none did, which was the last that did not answer."""

    is_told: bool = False
    silent: str | None = None
    # One of the route was not asked: it had failed lately, or there was no time left.
    is_any_left_out: bool = False


class _Round:
    """One round of sending."""

    def __init__(
        self,
        engine: Engine,
        channels: Mapping[str, AlertChannel],
        *,
        settings: AlertSettings,
        observer: str,
        lease: timedelta,
        max_seconds: float,
    ) -> None:
        self._engine = engine
        self._channels = channels
        self._settings = settings
        self._observer = observer
        self._lease = lease
        self._ends_at = time.monotonic() + max_seconds
        self._sent: Counter[str] = Counter()
        self._failures: dict[str, str] = {}
        # Channels that are left out: they failed lately, or just now.
        self._waiting: set[str] = set()

    def announce(self) -> Announced:
        """Send what is due."""
        claimed, as_of = with_retries(self._claim)
        if as_of is None:
            return Announced()
        left = {one.problem.problem_id: one for one in claimed}
        unanswered: list[Claimed] = []
        try:
            for route, group in self._by_route(claimed).items():
                # From here on it may be on its way: whatever happens, its lease must end before anybody tries again.
                for one in group:
                    del left[one.problem.problem_id]
                outcome = self._send(group, route, as_of=as_of)
                if outcome.silent is not None:
                    unanswered += self._settle_unanswered(group, outcome.silent, is_final=not outcome.is_any_left_out)
                elif not outcome.is_told:
                    left |= {one.problem.problem_id: one for one in group}
        finally:
            self._give_back(list(left.values()))
            self._give_back(unanswered, is_unanswered=True)
        return Announced(sent=self._sent, failures=self._failures, unsent=len(left) + len(unanswered))

    def _claim(self) -> tuple[list[Claimed], datetime | None]:
        with self._engine.begin() as conn:
            if self._observer == SENSOR:
                self._waiting = {name for name, one in alerts.channel_health(conn).items() if one.is_waiting}
            return alerts.claim(
                conn,
                sources=SOURCES[self._observer],
                remind_after=self._settings.remind_after,
                lease=self._lease,
            )

    def _by_route(self, claimed: Sequence[Claimed]) -> dict[tuple[str, ...], list[Claimed]]:
        """Return what goes together: the worst first, for the time is limited."""
        groups: dict[tuple[str, ...], list[Claimed]] = {}
        for one in sorted(claimed, key=lambda one: one.problem.severity):
            route = route_of(one, routes=self._settings.routes, channels=self._channels)
            groups.setdefault(route, []).append(one)
        return groups

    def _send(self, group: Sequence[Claimed], route: Sequence[str], *, as_of: datetime) -> _Outcome:
        """Send one message over the first channel that takes it."""
        silent, is_any_left_out = None, False
        if not route:
            # Nobody wants to know: that is settled, too.
            self._mark(group, NOWHERE)
            return _Outcome(is_told=True)
        message = message_about(group, links=self._settings.links, as_of=as_of)
        for name in route:
            if name in self._waiting or time.monotonic() >= self._ends_at:
                is_any_left_out = True
                continue
            try:
                note = self._channels[name].send(message)
            except (ChannelError, ValueError, OSError) as error:
                # What a library makes of a strange address may have the address in it.
                text = (
                    str(error) if isinstance(error, ChannelError) else f"{type(error).__name__}: is its address right?"
                )
                self._failures[name] = text
                self._waiting.add(name)
                silent = name if isinstance(error, UnansweredError) else silent
                if self._observer == SENSOR:
                    record_health(self._engine, name, error=text)
                continue
            # Somebody was told: rather wait for a database that restarts than tell them again.
            self._mark(group, name, note=note)
            self._sent[name] += 1
            return _Outcome(is_told=True)
        return _Outcome(silent=silent, is_any_left_out=is_any_left_out)

    def _settle_unanswered(self, group: Sequence[Claimed], name: str, *, is_final: bool) -> list[Claimed]:
        """Mark what was sent often enough as told by a channel that did not answer; return what is to be sent again.

        `is_final`: no other channel of the route could take it. One that was left out is waited for, and not for ever.
        """
        most = MOST_UNANSWERED if is_final else 2 * MOST_UNANSWERED
        again = [one for one in group if one.problem.unanswered + 1 < most]
        told = [one for one in group if one not in again]
        if told:
            with_retries(partial(self._write_mark, told, name, note=None))
        return again

    def _mark(self, group: Sequence[Claimed], name: str, *, note: str = "") -> None:
        is_recorded = name != NOWHERE and self._observer == SENSOR
        with_retries(partial(self._write_mark, group, name, note=note if is_recorded else None))

    def _write_mark(self, group: Sequence[Claimed], name: str, *, note: str | None) -> None:
        """Mark as told, and with a note that the channel works."""
        with self._engine.begin() as conn:
            alerts.mark(conn, group, channel=name)
            if note is not None:
                alerts.record_success(conn, name, note=note)

    def _give_back(self, claimed: Sequence[Claimed], *, is_unanswered: bool = False) -> None:
        if not claimed:
            return
        # A database that is gone must not hide why nobody was told.
        with suppress(DBAPIError), self._engine.begin() as conn:
            alerts.give_back(conn, claimed, is_unanswered=is_unanswered)


def record_health(engine: Engine, channel: str, *, note: str = "", error: str | None = None) -> None:
    """Remember whether a channel took a message, in a transaction of its own."""
    with engine.begin() as conn:
        if error is None:
            alerts.record_success(conn, channel, note=note)
        else:
            alerts.record_failure(conn, channel, error=error)
