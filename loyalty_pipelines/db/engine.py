"""Connections, transactions, and which failures are worth another try."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

Result = TypeVar("Result")

# SQLSTATE classes and codes after which the same transaction may succeed: lost connection, resources, shutdown;
# serialization failure and deadlock; lock timeout; the row that another process made first.
TRANSIENT_CLASSES = ("08", "53", "57")
TRANSIENT_CODES = ("40001", "40P01", "55P03", "25P03", "25P04")
# Ended by an administrator or a crash, starting up, too many connections, idle in a transaction for too long.
CONNECTION_LOSS_CODES = ("57P01", "57P02", "57P03", "57P05", "53300", "25P03")
# SQLSTATE classes of errors that one row can cause: features it reaches, cardinality, data, integrity, functions,
# limits, raised by the shop's own code.
POISON_CLASSES = ("0A", "21", "22", "23", "38", "39", "54", "P0")
# A statement that somebody cancelled on purpose is not to be repeated.
NOT_TRANSIENT_CODES = ("57014",)


def connect(url: str, *, pool_size: int = 2, application_name: str = "loyalty") -> Engine:
    """Return an engine on psycopg 3 whose sessions speak UTC and give their locks back when they are stuck.

    A worker that dies without closing its connection holds its locks for at most a minute. Whatever driver a
    PostgreSQL URL names, it is psycopg 3 that is used.
    """
    return create_engine(
        make_url(url.replace("postgres://", "postgresql://", 1)).set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=2,
        pool_pre_ping=True,
        # Bound values are ids and amounts of people: they belong in no error text and so in no log.
        hide_parameters=True,
        connect_args={
            "application_name": application_name,
            # A prepared statement keeps the plan it got while its tables were small: an award batch that was planned
            # against an empty ledger would read all of it for every batch. Planning a batch anew costs 3 ms.
            "prepare_threshold": None,
            "options": "-c timezone=UTC -c idle_in_transaction_session_timeout=60s -c lock_timeout=30s",
        },
    )


def is_caused_by_a_row(error: BaseException) -> bool:
    """Whether one row can cause the error (data, cardinality, integrity, raised by a function of the shop).

    Anything else, a missing column or right, is about the merchant, and no order is to blame.
    """
    code = getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None
    return (code or "").startswith(POISON_CLASSES)


@contextmanager
def reading(engine: Engine, *, is_one_snapshot: bool = False) -> Iterator[Connection]:
    """A connection in a read-only transaction, rolled back at the end; `is_one_snapshot`: of one instant throughout."""
    options: dict[str, Any] = {"isolation_level": "REPEATABLE READ"} if is_one_snapshot else {}
    with engine.connect().execution_options(postgresql_readonly=True, **options) as conn, conn.begin():
        yield conn


def is_transient(error: BaseException) -> bool:
    """Whether the same work may succeed when it is tried again: lost connections, deadlocks, timeouts."""
    if not isinstance(error, DBAPIError):
        return False
    if is_connection_loss(error):
        return True
    code = getattr(error.orig, "sqlstate", None) or ""
    return code not in NOT_TRANSIENT_CODES and (code.startswith(TRANSIENT_CLASSES) or code in TRANSIENT_CODES)


def is_connection_loss(error: BaseException) -> bool:
    """Whether the server could not answer at all: refused, gone, restarting, shutting down, out of connections."""
    if not isinstance(error, DBAPIError):
        return False
    code = getattr(error.orig, "sqlstate", None)
    if code is None:
        # psycopg has no SQLSTATE where nothing answered.
        return isinstance(error, (OperationalError, InterfaceError)) or error.connection_invalidated
    return code.startswith("08") or code in CONNECTION_LOSS_CODES


def with_retries(work: Callable[[], Result], *, attempts: int = 6) -> Result:
    """Run `work`, a whole transaction, again after transient failures: 0.2 s, doubling to 5 s, with jitter."""
    for attempt in Retrying(
        retry=retry_if_exception(is_transient),
        stop=stop_after_attempt(attempts),
        wait=wait_exponential_jitter(multiplier=0.2, max=5.0),
        reraise=True,
    ):
        with attempt:
            return work()
    raise AssertionError("tenacity either returns or raises")
