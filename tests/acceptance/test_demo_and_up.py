"""`loyalty demo` and `loyalty up`, as a person runs them."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest

from loyalty_pipelines.db.demo import MISMATCHES
from loyalty_pipelines.domain.subscriptions import BY_CODE
from tests.acceptance.conftest import wait_for

pytestmark = pytest.mark.xdist_group("dagster")

LOYALTY = str(Path(sys.executable).with_name("loyalty"))


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A machine without any database: everything goes to a fresh LOYALTY_HOME."""
    return {**os.environ, "LOYALTY_HOME": str(tmp_path / "home")}


@pytest.fixture
def port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def up(environment: dict[str, str], port: int, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`loyalty up`, ended after the test whatever it did."""
    with (tmp_path / "up.log").open("wb") as log:
        process = start_up(environment, port, log)
        yield process
        if process.poll() is None:
            process.terminate()
            process.wait(60)
    # A code server that was asked to end says goodbye to Dagster's database first.
    wait_for("all of Dagster's processes to end", lambda: dagster_processes(environment) == [])


def start_up(environment: dict[str, str], port: int, log: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen([LOYALTY, "up", "--port", str(port)], env=environment, stdout=log, stderr=subprocess.STDOUT)


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def dagster_processes(environment: dict[str, str]) -> list[psutil.Process]:
    """Return the live processes of Dagster that run on this LOYALTY_HOME."""
    home = str(Path(environment["LOYALTY_HOME"]) / "dagster")
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("DAGSTER_HOME") == home and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_the_demo_awards_everything_and_ends_by_itself(environment: dict[str, str], port: int) -> None:
    # A mail server that a shell has the settings of is none for made-up customers; nobody listens on this port.
    mail_server = {"LOYALTY_MAIL_URL": f"smtp://localhost:{port}?tls=none", "LOYALTY_MAIL_FROM": "shop@example.com"}
    ended = subprocess.run(
        [LOYALTY, "demo", "--orders", "4000", "--merchants", "4", "--json"],
        env={**environment, **mail_server, "LOYALTY_MAIL_PER_MINUTE": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert len(result["checks"]) == 46
    # Six subscriptions are wrong: the checks of their classes fail, each over the one finding that was put there.
    failed = [name for name, passed in result["checks"].items() if not passed]
    assert (
        sorted(failed) == sorted(result["checks_of_mismatches"]) == sorted(BY_CODE[one].sentence for one in MISMATCHES)
    )
    assert {one["class_name"]: one["findings"] for one in result["mismatches"]} == dict.fromkeys(MISMATCHES, 1)
    assert result["money_at_risk"] == {"CHF": "60", "EUR": "180", "USD": "180"}
    assert result["subscriptions_added"] == 200
    assert result["orders_added"] == 4000
    assert len(result["merchants"]) == 4
    assert {merchant["waiting"] for merchant in result["merchants"]} == {0}
    assert all(merchant["points"] > 0 for merchant in result["merchants"])
    assert min(result[f"orders_{what}"] for what in ("paid_late", "cancelled", "refunded")) > 0
    assert result["customers_warned"] > 0
    mails = list((Path(environment["LOYALTY_HOME"]) / "mails").glob("*.eml"))
    assert len(mails) == result["mails_sent"] >= result["customers_warned"] * 0.9
    assert result["mails_to"] == f"folder://{environment['LOYALTY_HOME']}/mails"
    assert dagster_processes(environment) == []
    log = Path(environment["LOYALTY_HOME"]) / "dagster" / "demo.log"
    assert "DEBUG" not in log.read_text(), "a dozen lines for every run"


def test_the_demo_does_not_write_into_a_database_that_somebody_named(database_url: str, tmp_path: Path) -> None:
    environment = {**os.environ, "LOYALTY_HOME": str(tmp_path / "home"), "LOYALTY_DATABASE_URL": database_url}
    refused = subprocess.run([LOYALTY, "demo"], env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "add --into-this-database" in refused.stderr


def test_a_port_that_somebody_else_uses_is_named(environment: dict[str, str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        refused = subprocess.run(
            [LOYALTY, "up", "--port", port], env=environment, capture_output=True, text=True, check=False
        )
    assert refused.returncode == 1
    assert f"Port {port} on 127.0.0.1 can't be used" in refused.stderr


def test_up_ends_what_a_killed_one_left_answers_refuses_a_second_one_and_ends_with_sigterm(
    up: subprocess.Popen[bytes], environment: dict[str, str], port: int, tmp_path: Path
) -> None:
    wait_for("the web UI", lambda: is_ready(port))
    left = {process.pid for process in dagster_processes(environment)} - {up.pid}
    up.send_signal(signal.SIGKILL)
    up.wait()
    assert left
    with (tmp_path / "again.log").open("wb") as file:
        again = start_up(environment, port, file)
    try:
        wait_for("the old ones to end", lambda: left.isdisjoint({one.pid for one in dagster_processes(environment)}))
        wait_for("the web UI", lambda: is_ready(port))
        log = (tmp_path / "again.log").read_text()
        assert "No source mapping is in force" in log
        assert "dagster.yaml" not in log, "Dagster warns of the one in this folder, which it does not use"
        for words in (["up", "--port", str(port)], ["demo", "--orders", "1"]):
            refused = subprocess.run([LOYALTY, *words], env=environment, capture_output=True, text=True, check=False)
            assert refused.returncode == 1
            assert "Dagster is running on" in refused.stderr
            assert "Traceback" not in refused.stderr
    finally:
        again.terminate()
        status = again.wait(60)
    assert status == 0
