"""Alerts in the words of a test: what somebody sees, what is told of it, how time passes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, text

from loyalty_pipelines.db import alerts
from loyalty_pipelines.db.alerts_run import SENSOR, announce, observe
from loyalty_pipelines.domain.alert_settings import AlertSettings, alert_settings
from loyalty_pipelines.domain.alert_table import AlertTable, parse_alert_table
from loyalty_pipelines.domain.alerts import Announced, Problem, Sight, Source, State, Symptom
from loyalty_pipelines.resources.alert_channels import channels_for
from tests.webhook import Webhook

TABLE = """
| source | name | when red | when yellow | runbook |
|---|---|---|---|---|
| check | a | P0 | P2 | [a](runbooks/a.md#a-is-red) |
| check | b | P1 | P2 | |
| check | c | P2 | P2 | |
| job | quiet | - | - | |
| * | * | P1 | P2 | |
"""
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
# Every instant that alerts are decided by.
INSTANTS = {
    "alert_problems": (
        "started_at", "gone_since", "ended_at", "first_notified_at", "last_notified_at", "end_notified_at",
        "leased_until", "closed_at",
    ),
    "alert_channels": ("next_try_at", "failing_since", "failed_at", "succeeded_at"),
    "alert_silences": ("created_at", "until_at"),
    "alert_observers": ("looked_at",),
}  # fmt: skip


def symptom(name: str, state: State = State.RED, **more: Any) -> Symptom:
    """Return what an observer sees of a check."""
    values = {"source": Source.CHECK, "title": f"{name} is {state.value}", "detail": "3 orders.", "since": LONG_AGO}
    return Symptom(name=name, state=state, **{**values, **more})


@dataclass
class Alerting:
    """Looks and tells, over the channels that the environment names."""

    engine: Engine
    environment: dict[str, str] = field(default_factory=dict)
    table: AlertTable = field(default_factory=lambda: parse_alert_table(TABLE))

    @property
    def settings(self) -> AlertSettings:
        """What the environment says; a mistake fails the test."""
        found = alert_settings(self.environment)
        assert found.problems == ()
        return found

    def use(self, hook: Webhook, *, name: str = "WEBHOOK") -> None:
        """Let a server be the channel WEBHOOK or SLACK."""
        self.environment[f"LOYALTY_ALERT_{name}_URL"] = hook.url

    def see(self, *names: str, undecided: tuple[str, ...] = (), **states: State) -> int:
        """Let the sensor see these red, or as named, and nothing else; return how many problems are open."""
        found = (*(symptom(name) for name in names), *(symptom(name, state) for name, state in states.items()))
        return observe(self.engine, SENSOR, Sight(symptoms=found, undecided=frozenset(undecided)), self.table)

    def tell(self, channels: Mapping[str, Any] | None = None, **options: Any) -> Announced:
        """Send what is due."""
        settings = self.settings
        return announce(self.engine, channels or channels_for(settings), settings=settings, **options)

    def tick(self, *names: str, **states: Any) -> Announced:
        """Look and tell, as the sensor does."""
        self.see(*names, **states)
        return self.tell()

    def wait(self, **time: float) -> None:
        """Let time pass: everything is longer ago."""
        with self.engine.begin() as conn:
            for table, columns in INSTANTS.items():
                changes = ", ".join(f"{one} = {one} - CAST(:time AS interval)" for one in columns)
                conn.execute(text(f"UPDATE loyalty.{table} SET {changes}"), {"time": timedelta(**time)})

    def problems(self, *, is_all: bool = True) -> list[Problem]:
        """Return the problems, the open ones first."""
        with self.engine.connect() as conn:
            return alerts.find_problems(conn, is_all=is_all, limit=1000)

    def problem(self) -> Problem:
        """Return the only problem."""
        (found,) = self.problems()
        return found
