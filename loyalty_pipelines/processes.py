"""Dagster's own processes on this machine: their environment, their start and their end."""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import psutil

from loyalty_pipelines import embedded
from loyalty_pipelines.contracts import VARIABLE as CONTRACTS_VARIABLE
from loyalty_pipelines.domain.alert_settings import VARIABLES
from loyalty_pipelines.domain.errors import ConfigurationError
from loyalty_pipelines.resources.alert_table import TABLE_VARIABLE
from loyalty_pipelines.resources.report_store import VARIABLE as REPORTS_VARIABLE

STOP_SECONDS = 20


class AlreadyRunningError(ConfigurationError):
    """Another `loyalty up` or `loyalty demo` runs Dagster on the same DAGSTER_HOME."""

    def __init__(self, home: Path) -> None:
        super().__init__(
            f"Dagster is running on {home} already, started by another 'loyalty up' or 'loyalty demo': two daemons "
            "would start every run twice. Use that one, or end it with Ctrl-C first."
        )


def dagster_environment() -> dict[str, str]:
    """Return what Dagster's processes need: both databases (started if none are set) and DAGSTER_HOME.

    DAGSTER_HOME is used as it is set; otherwise it is `$LOYALTY_HOME/dagster` with this release's dagster.yaml.
    """
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        folder = embedded.home() / "dagster"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_shipped("dagster.yaml"), folder / "dagster.yaml")
        home = str(folder)
    elif not (Path(home) / "dagster.yaml").is_file():
        raise ConfigurationError(
            f"DAGSTER_HOME is {home}, and there is no dagster.yaml in it: copy this release's there, or unset "
            "DAGSTER_HOME to use a folder under LOYALTY_HOME."
        )
    return {
        "LOYALTY_DATABASE_URL": embedded.loyalty_url(),
        "DAGSTER_POSTGRES_URL": embedded.dagster_url(),
        "DAGSTER_HOME": home,
        **mail_environment(),
        **reports_environment(),
        **contracts_environment(),
        **alert_table_environment(),
    }


def reports_environment() -> dict[str, str]:
    """Return where reports go, as Dagster's processes need it: they run in another folder than this one."""
    place = os.environ.get(REPORTS_VARIABLE, "").strip() or str(embedded.home() / "reports")
    return {REPORTS_VARIABLE: place if "://" in place else _absolute(place)}


def contracts_environment() -> dict[str, str]:
    """Return where contracts of the operator's own are, as Dagster's processes need it."""
    return _named_from_anywhere(CONTRACTS_VARIABLE)


def alert_table_environment() -> dict[str, str]:
    """Return where the operator's own table of alerts is, as Dagster's processes need it."""
    return _named_from_anywhere(TABLE_VARIABLE)


def _named_from_anywhere(variable: str) -> dict[str, str]:
    """Return a variable that names a file or folder, as it is named from any other folder; none if it is not set."""
    path = os.environ.get(variable, "").strip()
    return {variable: _absolute(path)} if path else {}


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def mail_environment() -> dict[str, str]:
    """Return where mails go on a machine that has neither a database nor a mail server: to files in LOYALTY_HOME.

    Only there: who names a database with customers says where their mails go.
    """
    is_named = any(os.environ.get(name, "").strip() for name in ("LOYALTY_DATABASE_URL", "LOYALTY_MAIL_URL"))
    return {} if is_named else {"LOYALTY_MAIL_URL": _mail_folder()}


def demo_mail_environment() -> dict[str, str]:
    """Return what lets mails go to files in LOYALTY_HOME and alerts nowhere, whatever servers and channels are set."""
    mails = {"LOYALTY_MAIL_URL": _mail_folder(), "LOYALTY_MAIL_FROM": "", "LOYALTY_MAIL_PER_MINUTE": ""}
    return mails | dict.fromkeys(VARIABLES.values(), "")


def _mail_folder() -> str:
    return f"folder://{quote(str(embedded.home() / 'mails'))}"


def _shipped(name: str) -> Path:
    """Return a file of Dagster's settings: beside the package in a clone, inside it when installed as a wheel."""
    package = Path(__file__).parent
    for candidate in (package / name, package.parent / name):
        if candidate.exists():
            return candidate
    raise ConfigurationError(
        f"Found no {name} in {package} or beside it: reinstall loyalty-pipelines, or set DAGSTER_HOME to a folder with "
        "a dagster.yaml of your own and start Dagster with a workspace.yaml of your own."
    )


def refuse_busy_port(host: str, port: int) -> None:
    """Raise `ConfigurationError` when something listens on the port: Dagster would take another one silently."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"Port {port} on {host} can't be used ({error.strerror}): choose another one with --port."
            ) from error


@contextmanager
def dagster_running(
    script: str,
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path | None,
    workspace: Sequence[str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """One of Dagster's scripts as a child process, its output in `log` (None: on this terminal), until the end.

    `workspace` are the arguments that name the code; this release's workspace.yaml by default.

    One at a time per DAGSTER_HOME: raises `AlreadyRunningError` otherwise. What an earlier start left behind when it
    was killed is ended first.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in the background by a shell without job control: an ignored signal would be inherited, and the child
        # could not be asked to end.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    home = Path(environment["DAGSTER_HOME"])
    with _only_one(home) as pid_file:
        _end_leftover(pid_file, home)
        output = log.open("ab") if log else None
        code = workspace or ("-w", str(_shipped("workspace.yaml")))
        try:
            process = subprocess.Popen(
                [str(Path(sys.executable).with_name(script)), *arguments, *code],
                env={**os.environ, **environment},
                # In a clone it would warn that the dagster.yaml there is not the one it uses.
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                # A group of its own: Ctrl-C reaches this process, which then ends the group in order.
                start_new_session=True,
            )
            pid_file.write_text(str(process.pid))
            try:
                yield process
            finally:
                _stop(process)
                pid_file.write_text("")
        finally:
            if output:
                output.close()


@contextmanager
def _only_one(home: Path) -> Iterator[Path]:
    """Hold the lock of this DAGSTER_HOME; the kernel drops it with the process, however that ends."""
    with (home / "loyalty-up.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunningError(home) from error
        yield home / "loyalty-up.pid"


def end_leftovers(environment: Mapping[str, str]) -> None:
    """End what an earlier start on this DAGSTER_HOME left behind when it was killed; its web server holds the port.

    Raises `AlreadyRunningError` when that start is alive.
    """
    home = Path(environment["DAGSTER_HOME"])
    with _only_one(home) as pid_file:
        _end_leftover(pid_file, home)


def _end_leftover(pid_file: Path, home: Path) -> None:
    """End the Dagster processes of a start whose own process was killed; nothing else with that number."""
    text = pid_file.read_text().strip() if pid_file.exists() else ""
    if not text:
        return
    for process in _group(int(text)):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get("DAGSTER_HOME") == str(home):
                process.kill()
                process.wait(STOP_SECONDS)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end its children and itself; end what is left of its group after 20 s, then what ignores that.

    Code servers that outlive their parent hold connections to a database that is about to stop; one that is still
    loading code can lose the signal that asks it to end.
    """
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    for number in (signal.SIGTERM, signal.SIGKILL):
        members = _group(process.pid)
        for member in members:
            with suppress(psutil.NoSuchProcess):
                member.send_signal(number)
        psutil.wait_procs(members, timeout=STOP_SECONDS)
    process.wait()


def _group(number: int) -> list[psutil.Process]:
    """Return the live processes of a process group."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == number and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
