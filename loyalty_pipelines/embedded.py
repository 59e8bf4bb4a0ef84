"""The default PostgreSQL, for people who have none: a private server, shared by all who ask for it.

One lock per server lets one process at a time look at it, start it or stop it. Who uses the server is a file
lock that the kernel drops with its process: a list of process ids would survive a `kill -9`, and the number
may belong to another program by then. `embedded_cluster.py` knows how the server is made and run.
"""

import atexit
import contextlib
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from loyalty_pipelines import embedded_cluster as cluster
from loyalty_pipelines.domain.errors import ConfigurationError, LoyaltyError
from loyalty_pipelines.embedded_cluster import EmbeddedServerError

__all__ = [
    "DEFAULT_SETTINGS",
    "EmbeddedServer",
    "EmbeddedServerError",
    "dagster_url",
    "home",
    "loyalty_url",
    "start_server",
]

DEFAULT_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "max_connections": "200",
        "shared_buffers": "256MB",
        "work_mem": "32MB",
        "maintenance_work_mem": "128MB",
        "effective_cache_size": "1GB",
        "max_wal_size": "4GB",
        "checkpoint_timeout": "15min",
        "random_page_cost": "1.1",
        "jit": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        # Points are money: a power cut must not lose a commit, not even on a laptop.
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
    }
)

_process_lock = threading.RLock()
_uses: dict[Path, tuple[int, int]] = {}  # data_dir -> (pid that registered, file descriptor with its lock)


@dataclass(frozen=True, kw_only=True)
class EmbeddedServer:
    """A running private server: its data folder, and the folder of its Unix socket (it has no TCP port)."""

    data_dir: Path
    socket_dir: Path

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of `database` on psycopg 3."""
        return f"postgresql+psycopg://{self._address(database)}"

    def psycopg2_url(self, database: str) -> str:
        """Return the SQLAlchemy URL of `database` on psycopg2, the driver that dagster-postgres needs."""
        return f"postgresql+psycopg2://{self._address(database)}"

    @property
    def pid(self) -> int:
        """Return the postmaster's process id; EmbeddedServerError if the server is not running."""
        found = cluster.find_postmaster(self.data_dir)
        if found is None:
            raise EmbeddedServerError(
                f"The PostgreSQL in {self.data_dir} is not running; call start_server.",
                data_dir=self.data_dir,
            )
        return found.pid

    def ensure_database(self, database: str) -> None:
        """Create `database` (UTF-8) unless it exists; safe when several processes do it at once."""
        import psycopg
        from psycopg import errors, sql

        # The builtin locale needs nothing from the machine, so sorting and lower() are the same everywhere.
        statement = sql.SQL(
            "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' "
            "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'"
        ).format(sql.Identifier(database))
        with psycopg.connect(cluster.conninfo(self.socket_dir), autocommit=True) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone()
            if found is None:
                # Another process created it since; it waited for that one's commit, so it is there now.
                with contextlib.suppress(errors.DuplicateDatabase, errors.UniqueViolation):
                    connection.execute(statement)

    def stop(self, *, mode: str = "fast") -> None:
        """Stop the server, whoever uses it, in mode smart, fast or immediate; no error if it is stopped."""
        if mode not in ("smart", "fast", "immediate"):
            raise ConfigurationError(f"Stop mode {mode!r} is unknown; use 'smart', 'fast' or 'immediate'.")
        with _locked(self.data_dir):
            _forget_use(self.data_dir)
            cluster.stop(self.data_dir, mode)

    def _address(self, database: str) -> str:
        return f"postgres@/{quote(database, safe='')}?host={quote(str(self.socket_dir))}&port={cluster.PORT}"


def home() -> Path:
    """Return the absolute folder of everything the product keeps: $LOYALTY_HOME, or `.loyalty` here."""
    return Path(os.environ.get("LOYALTY_HOME", "").strip() or ".loyalty").expanduser().absolute()


def loyalty_url() -> str:
    """Return the URL of the shop's database on psycopg 3: $LOYALTY_DATABASE_URL, or the private server's."""
    return _url_from("LOYALTY_DATABASE_URL", "postgresql+psycopg") or _embedded("loyalty").url("loyalty")


def dagster_url() -> str:
    """Return the URL of Dagster's database on psycopg2: $DAGSTER_POSTGRES_URL, or the private server's."""
    return _url_from("DAGSTER_POSTGRES_URL", "postgresql+psycopg2") or _embedded("dagster").psycopg2_url("dagster")


def start_server(
    data_dir: Path, *, settings: Mapping[str, str] = DEFAULT_SETTINGS, keep_running: bool = False
) -> EmbeddedServer:
    """Return the private server of `data_dir`, made and started if need be, once it accepts connections.

    Processes that call this share the server. It stops when the last of them ends, also if others were
    killed, unless one asked to `keep_running`. A process that dies without running its exit handlers
    (`kill -9`, an unhandled SIGTERM) leaves it running for the next one. `settings` count when it starts.
    Raises ConfigurationError for what an operator can set right, EmbeddedServerError for the rest.
    """
    data_dir = Path(data_dir).expanduser().resolve()
    _refuse_what_cannot_work(data_dir)
    with _locked(data_dir):
        if not keep_running:
            _register_use(data_dir)
        if cluster.find_postmaster(data_dir) is None:
            _keep_file(data_dir).unlink(missing_ok=True)
            cluster.start(data_dir, settings)
        if keep_running:
            _keep_file(data_dir).touch()
        socket_dir = cluster.wait_until_it_answers(data_dir)
    return EmbeddedServer(data_dir=data_dir, socket_dir=socket_dir)


# --- Addresses from the environment ---


def _url_from(variable: str, driver: str) -> str | None:
    """Return $variable with its driver replaced, None if it is not set; an error never shows a password."""
    value = os.environ.get(variable, "").strip()
    if not value:
        return None
    found = re.fullmatch(r"(?:postgres|postgresql|postgresql\+psycopg2?)://(\S+)", value, re.IGNORECASE)
    url = f"{driver}://{found[1]}" if found else ""
    if _is_readable(url):
        return url
    scheme = re.match(r"([a-z][a-z0-9+.-]{0,30})://", value, re.IGNORECASE)
    seen = f"starts with '{scheme[1]}://'" if scheme else "has no scheme such as 'postgresql://'"
    if scheme and re.fullmatch(r"postgres(ql(\+psycopg2?)?)?", scheme[1], re.IGNORECASE):
        seen = "can't be read (is its port a number?)" if url else "is empty after '://' or contains white space"
    raise ConfigurationError(
        f"{variable} {seen}; expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE "
        "(characters such as '@', '/' or a space in the password are written %40, %2F, %20)."
    )


def _is_readable(url: str) -> bool:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        make_url(url)
    except (ArgumentError, ValueError):
        # Its text shows a part of the URL, which may be the password.
        return False
    return True


def _embedded(database: str) -> EmbeddedServer:
    server = start_server(home() / "postgres")
    server.ensure_database(database)
    return server


# --- Who may use which folder ---


def _refuse_what_cannot_work(data_dir: Path) -> None:
    """Raise ConfigurationError for a platform or a data folder that this module cannot serve."""
    if sys.platform == "win32":
        cluster.no_build("it needs Unix sockets")
    if re.search(r'["$`\\\n]', str(data_dir)):
        raise ConfigurationError(
            f"The path {str(data_dir)!r} contains a quote, '$', backslash or line break, which pg_ctl cannot "
            "take; set LOYALTY_HOME to another folder."
        )
    try:
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        owner = data_dir.stat().st_uid if data_dir.exists() else None
        empty = owner is None or (owner == os.geteuid() and not any(data_dir.iterdir()))
    except OSError as error:
        raise ConfigurationError(
            f"Cannot use {data_dir}: {error.strerror}; set LOYALTY_HOME to a folder that you own."
        ) from error
    if owner is None or empty:
        return
    # As root the server runs as the library's user; a chown by the library would lock out another owner.
    expected = _user_name(os.geteuid()) if os.geteuid() else cluster.LIBRARY_USER
    if _user_name(owner) != expected:
        raise ConfigurationError(
            f"{data_dir} belongs to user {_user_name(owner)}, expected {expected}; run as the user who made "
            f"it, set LOYALTY_HOME to another folder, or give it away with: chown -R {expected} {data_dir}"
        )
    found = data_dir / "PG_VERSION"
    version = found.read_text().strip() if found.exists() else None
    if version != str(cluster.SERVER_VERSION):
        holds = f"holds PostgreSQL {version}" if version else "is not empty and no PostgreSQL data folder"
        raise ConfigurationError(
            f"{data_dir} {holds}, expected PostgreSQL {cluster.SERVER_VERSION}; set LOYALTY_HOME to another folder."
        )


def _user_name(uid: int) -> str:
    import pwd  # not on Windows, where this module must import for those who set both variables

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


# --- Locks: kept beside the data folder, because initdb wants that one empty ---


def _keep_file(data_dir: Path) -> Path:
    return data_dir.with_name(f"{data_dir.name}.keep")


def _open_lock_file(data_dir: Path, kind: str) -> int:
    path = data_dir.with_name(f"{data_dir.name}.{kind}")
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot write {path}: {error.strerror}; set LOYALTY_HOME to a folder that you own."
        ) from error


@contextlib.contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Let one thread of one process at a time look at, start or stop the server."""
    import fcntl

    with _process_lock:
        descriptor = _open_lock_file(data_dir, "lock")
        try:
            deadline = time.monotonic() + cluster.START_TIMEOUT_SECONDS
            while True:
                # lockf, not flock: a forked child must not keep the lock after its parent was killed.
                with contextlib.suppress(BlockingIOError, PermissionError):
                    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if time.monotonic() > deadline:
                    raise EmbeddedServerError(
                        f"Another process has been starting or stopping the PostgreSQL in {data_dir} for "
                        f"{cluster.START_TIMEOUT_SECONDS} s; look at {data_dir / 'log'}, then try again.",
                        data_dir=data_dir,
                    )
                time.sleep(0.02)
            yield
        finally:
            os.close(descriptor)


def _register_use(data_dir: Path) -> None:
    """Hold a shared lock until this process ends, however it ends. Called under the server's lock."""
    import fcntl

    if data_dir in _uses and _uses[data_dir][0] == os.getpid():
        return
    descriptor = _open_lock_file(data_dir, "users")
    fcntl.lockf(descriptor, fcntl.LOCK_SH)
    _uses[data_dir] = (os.getpid(), descriptor)
    atexit.register(_end_use, data_dir)


def _forget_use(data_dir: Path) -> bool:
    """Drop this process's share; return whether it had one and was the last."""
    import fcntl

    if data_dir not in _uses:
        return False
    # A forked child runs its parent's exit handlers; it fails at the lock, which is the parent's alone.
    _, descriptor = _uses.pop(data_dir)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    finally:
        os.close(descriptor)
    return True


def _end_use(data_dir: Path) -> None:
    """Stop the server at the end of this process if nobody else uses it and nobody asked for it to stay."""
    if not data_dir.is_dir():  # removed in the meantime; a server without its folder stops by itself
        return
    try:
        with _locked(data_dir):
            if _forget_use(data_dir) and not _keep_file(data_dir).exists():
                cluster.stop(data_dir, "fast")
    except LoyaltyError as error:  # the process is ending: nobody is left to catch it
        logging.getLogger(__name__).warning("%s", error)
