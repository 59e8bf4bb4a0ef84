"""A Dagster that really runs: daemon, code server, run workers, on servers of its own."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import psutil
import pytest

from loyalty_pipelines.db import sample_shop
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.migrate import upgrade
from loyalty_pipelines.embedded import EmbeddedServer, start_server
from loyalty_pipelines.processes import dagster_environment, dagster_running
from tests.acceptance.definitions import WANTED
from tests.conftest import FAST_SETTINGS
from tests.shop import Shop
from tests.webhook import Webhook, webhook

PATIENCE_SECONDS = 120


def wait_for(what: str, condition: Callable[[], object]) -> None:
    """Wait until the condition holds; fail with its name after two minutes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.1)
    pytest.fail(f"waited {PATIENCE_SECONDS} s for: {what}")


@dataclass
class RunningDagster:
    """The shop, the instance, and the server that the ledger is on; Dagster's storage is on another one."""

    shop: Shop
    instance: dg.DagsterInstance
    ledger_server: EmbeddedServer
    environment: dict[str, str]
    log: Path
    hook: Webhook

    def worker(self, job_name: str) -> psutil.Process:
        """Return the process of the newest run of a job, by the pid that it logged when it started its steps."""
        run_id = self.runs(job_name)[0].run_id
        messages = [entry.message for entry in self.instance.all_logs(run_id)]
        (pid,) = {
            int(found[1])
            for message in messages
            if (found := re.search(r"Executing steps in process \(pid: (\d+)\)", message))
        }
        return psutil.Process(pid)

    def runs(self, job_name: str, **tags: str) -> list[dg.DagsterRun]:
        """Return the runs of a job, the newest first."""
        return list(self.instance.get_runs(dg.RunsFilter(job_name=job_name, tags=tags)))

    def command(self, *words: str) -> subprocess.Popen[str]:
        """Start a command of the environment's bin folder against this instance and ledger."""
        return subprocess.Popen(
            [str(Path(sys.executable).with_name(words[0])), *words[1:]],
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def start(self, **jobs: dict[str, str]) -> None:
        """Let the daemon start runs of these jobs with these tags."""
        file = Path(self.environment["LOYALTY_HOME"]) / WANTED
        half = file.with_suffix(".half")
        half.write_text(json.dumps(list(jobs.items())))
        half.replace(file)

    def launch_sweep(self, *merchants: str) -> subprocess.Popen[str]:
        """Start a sweep of the merchants from the first to the last, as the schedule does."""
        tags = {
            "dagster/asset_partition_range_start": merchants[0],
            "dagster/asset_partition_range_end": merchants[-1],
        }
        return self.command(
            "dagster", "job", "launch", "-w", "workspace.yaml", "-j", "sweep_points_job", "--tags", json.dumps(tags)
        )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDagster]:
    """Dagster, started as `loyalty demo` starts it, over the sample shop: once, because that takes some ten seconds.

    Each test has merchants of its own.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield from running_in(tmp_path_factory.mktemp("running"), monkeypatch)


def running_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningDagster]:
    """Start it in a folder, and end it."""
    monkeypatch.setenv("LOYALTY_HOME", str(tmp_path / "home"))
    ledger_server = start_server(tmp_path / "ledger", settings=FAST_SETTINGS)
    ledger_server.ensure_database("loyalty")
    monkeypatch.setenv("LOYALTY_DATABASE_URL", ledger_server.url("loyalty"))
    environment = {**dagster_environment(), "LOYALTY_HOME": str(tmp_path / "home")}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    engine = connect(environment["LOYALTY_DATABASE_URL"], pool_size=4)
    upgrade(engine)
    with engine.begin() as conn:
        sample_shop.create(conn)
    shop = Shop(engine)
    log = tmp_path / "daemon.log"
    with webhook() as hook:
        environment["LOYALTY_ALERT_WEBHOOK_URL"] = hook.url
        # The product's definitions, with an alerts_sensor that looks more often.
        code = ("-w", str(Path(__file__).with_name("workspace.yaml")))
        with (
            dagster_running("dagster-daemon", ["run"], environment=environment, log=log, workspace=code),
            dg.DagsterInstance.get() as instance,
        ):
            yield RunningDagster(shop, instance, ledger_server, environment, log, hook)
    engine.dispose()
    ledger_server.stop()
