"""What the database alone says of alerts, asked from outside Dagster."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from loyalty_pipelines.domain.alert_messages import span
from loyalty_pipelines.domain.alerts import SILENT_SENSOR, Sight, Source, State, Symptom
from loyalty_pipelines.domain.queue import QueueVerdict


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
        when = f"has not looked for {span(self.sensor_age)}" if self.sensor_age else "has never looked"
        return f"alerts_sensor {when}: is Dagster's daemon running, is the sensor on, do its ticks fail?"
