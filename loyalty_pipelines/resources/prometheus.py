"""Prometheus: measurements as its text format, and the way to a Pushgateway."""

import threading
from collections.abc import Callable, Iterator
from http.client import HTTPException
from urllib.error import HTTPError, URLError

from prometheus_client import CollectorRegistry, generate_latest, push_to_gateway
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import basic_auth_handler
from prometheus_client.registry import Collector

from loyalty_pipelines.domain.metrics import METRICS, Measurements
from loyalty_pipelines.domain.metrics_push import PushFailedError, PushSettings

# The group of the Pushgateway: every push replaces the one before.
GROUP = "loyalty_pipelines"
LONGEST_PUSH_SECONDS = 10.0


class MeasurementsCollector(Collector):
    """Gives what was measured to a registry; a metric without samples shows its name and meaning all the same."""

    def __init__(self, measured: Measurements) -> None:
        self._measured = measured

    def collect(self) -> Iterator[Metric]:
        """Yield each metric with its samples."""
        for metric in METRICS:
            family = GaugeMetricFamily(metric.name, metric.text, labels=metric.labels)
            for labels, value in self._measured.samples[metric.name].items():
                family.add_metric(labels, value)
            yield family


def registry_of(measured: Measurements) -> CollectorRegistry:
    """Return a registry with nothing but what was measured."""
    registry = CollectorRegistry()
    registry.register(MeasurementsCollector(measured))
    return registry


def as_text(measured: Measurements) -> bytes:
    """Return the text format: UTF-8, with every label value escaped."""
    return generate_latest(registry_of(measured))


def push(measured: Measurements, settings: PushSettings, *, longest_seconds: float = LONGEST_PUSH_SECONDS) -> None:
    """Replace what the Pushgateway has of this installation; raise `PushFailedError`, without the password.

    It is over after `longest_seconds`, also where the gateway answers a byte at a time: then a thread is left behind,
    which ends with the process.
    """
    problems: list[str | None] = []

    def work() -> None:
        try:
            push_to_gateway(
                settings.url,
                job=GROUP,
                registry=registry_of(measured),
                timeout=longest_seconds,
                handler=_handler(settings),
            )
        except (OSError, HTTPException, ValueError) as error:
            problems.append(_reason(error))
        else:
            problems.append(None)

    worker = threading.Thread(target=work, name="metrics-push", daemon=True)
    worker.start()
    worker.join(longest_seconds)
    problem = problems[0] if problems else f"no whole answer within {longest_seconds:g} s"
    if problem is not None:
        raise PushFailedError(place=settings.url, reason=problem)


def _handler(settings: PushSettings) -> Callable[..., Callable[[], None]]:
    def with_login(
        url: str, method: str, timeout: float | None, headers: list[tuple[str, str]], data: bytes
    ) -> Callable[[], None]:
        return basic_auth_handler(url, method, timeout, headers, data, settings.user, settings.password)

    return with_login


def _reason(error: BaseException) -> str:
    if isinstance(error, HTTPError):
        # What it finds wrong with them is in the body.
        said = error.read(300).decode("utf-8", "replace").strip().split("\n", maxsplit=1)[0]
        return f"it answered {error.code} {error.reason}" + (f" ({said})" if said else "")
    if isinstance(error, URLError):
        return str(error.reason)
    return str(error) or type(error).__name__
