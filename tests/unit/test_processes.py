"""The end of Dagster's processes, played by Python programs that behave as badly."""

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from loyalty_pipelines import processes

# A leader with a child that hears no request to end; it writes the child's number when both are ready.
STUBBORN_CHILD = """
import signal, subprocess, sys, time
deaf = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (2, 15)]; print(); time.sleep(300)"
child = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
child.stdout.readline()
open("ready", "w").write(str(child.pid) + "\\n")
try:
    time.sleep(300)
except KeyboardInterrupt:
    pass
"""
STUBBORN_LEADER = """
import os, signal, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
open("ready", "w").write(str(os.getpid()) + "\\n")
time.sleep(300)
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """Runs a program as Dagster is run, ends it when it is ready, and returns the process that it named."""
    monkeypatch.setattr(processes, "STOP_SECONDS", 1)

    def run(program: str) -> int:
        ready = tmp_path / "ready"
        environment = {"DAGSTER_HOME": str(tmp_path)}
        with processes.dagster_running(
            Path(sys.executable).name, ["-c", program], environment=environment, log=None
        ) as leader:
            while not (ready.exists() and ready.read_text().endswith("\n")):
                assert leader.poll() is None
                time.sleep(0.01)
        return int(ready.read_text())

    return run


@pytest.mark.parametrize("program", [STUBBORN_CHILD, STUBBORN_LEADER])
def test_what_does_not_hear_that_it_should_end_is_ended(run: Callable[[str], int], program: str) -> None:
    left = run(program)
    try:
        assert not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE
    finally:
        if psutil.pid_exists(left):
            psutil.Process(left).send_signal(signal.SIGKILL)
