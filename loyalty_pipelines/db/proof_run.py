"""What the loops of the proofs share: one at a time, whom to look at in full, and what was found by merchant."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db.engine import with_retries
from loyalty_pipelines.domain.findings import AtRisk, OpenFindings

Row = TypeVar("Row", OpenFindings, AtRisk)


@contextmanager
def alone(
    engine: Engine, *, lock: Callable[[Connection], None], unlock: Callable[[Connection], None]
) -> Iterator[None]:
    """Hold a session's lock; whoever comes second waits."""

    def take(conn: Connection) -> None:
        conn.rollback()
        lock(conn)
        conn.commit()

    with engine.connect() as conn:
        with_retries(lambda: take(conn))
        try:
            yield
        finally:
            # A session that is gone has given the lock back already.
            with suppress(DBAPIError):
                unlock(conn)
                conn.commit()


def groups(known: Mapping[str, bool], *, is_full: bool) -> Iterator[tuple[Sequence[str], bool]]:
    """Yield those to look at in full, then those of whom what is new is enough (`known` says of whom), each if any."""
    unmarked = [name for name, is_marked in known.items() if is_full or not is_marked]
    marked = [name for name, is_marked in known.items() if is_marked and not is_full]
    if unmarked:
        yield unmarked, True
    if marked:
        yield marked, False


def by_merchant(rows: Iterable[Row]) -> Mapping[str, Sequence[Row]]:
    """Return the rows of each merchant; none for one that has none."""
    grouped: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row.merchant_id].append(row)
    return grouped
