"""Loads opening balances into the ledger: all of the file or nothing, and a second time without effect."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from loyalty_pipelines.db.awards import lock_merchant
from loyalty_pipelines.db.statements import load, read
from loyalty_pipelines.domain.csv_files import MAX_PROBLEMS, Columns, Problems, problem
from loyalty_pipelines.domain.opening_balances import (
    MerchantOpening,
    OpeningFormat,
    OpeningReport,
    OpeningsDoNotAddUpError,
    StoredLine,
    parse_line,
)

CREATE_STAGE = load("opening_balances/create_stage")
COPY_LINES = read("opening_balances/copy_lines")
ANALYZE_LINES = load("opening_balances/analyze_lines")
MERCHANTS = load("opening_balances/merchants")
RESOLVE_LINES = load("opening_balances/resolve_lines")
ANALYZE_BALANCES = load("opening_balances/analyze_balances")
PROBLEMS = load("opening_balances/problems")
CREATE_ACCOUNTS = load("opening_balances/create_accounts")
POST_OPENINGS = load("opening_balances/post_openings")
SUMMARY = load("opening_balances/summary")


def import_balances(
    conn: Connection,
    rows: Iterator[tuple[int, list[str]]],
    form: OpeningFormat,
    *,
    path: str,
    actor: str,
    on_line: Callable[[], None] | None = None,
) -> OpeningReport:
    """Give each customer of `rows` (line number, cells) an opening entry; the caller commits, or rolls back.

    Keeps one line in memory at a time. Raises `FileRefusedError` with the first problems after reading to the end.
    """
    lines, problems = _stage(conn, rows, form, on_line)
    for merchant_id in conn.execute(MERCHANTS).scalars().all():
        lock_merchant(conn, merchant_id)
    conn.execute(RESOLVE_LINES)
    conn.execute(ANALYZE_BALANCES)
    _note_stored(conn, problems, form.columns)
    if not lines:
        problems.note([problem(None, "file", "a header and no balances", "a line per customer")])
    problems.refuse(path)
    conn.execute(CREATE_ACCOUNTS)
    posted = conn.execute(POST_OPENINGS, {"reason": f"imported from {Path(path).name}", "actor": actor}).one()
    merchants = tuple(MerchantOpening(**row._mapping) for row in conn.execute(SUMMARY))
    expected = sum(merchant.points for merchant in merchants)
    if not posted.points_in_entries == posted.points_in_balances == expected:
        raise OpeningsDoNotAddUpError(
            path=path,
            expected=expected,
            entries=int(posted.points_in_entries),
            balances=int(posted.points_in_balances),
        )
    return OpeningReport(lines=lines, columns=form.columns.names, merchants=merchants)


def _stage(
    conn: Connection,
    rows: Iterator[tuple[int, list[str]]],
    form: OpeningFormat,
    on_line: Callable[[], None] | None,
) -> tuple[int, Problems]:
    conn.execute(CREATE_STAGE)
    problems, lines = Problems(), 0
    driver = conn.connection.driver_connection
    assert driver is not None
    with driver.cursor() as cursor, cursor.copy(COPY_LINES) as copy:
        for number, cells in rows:
            found, wrong = parse_line(number, cells, form)
            lines += 1
            problems.note(wrong)
            if found:
                times = _times(found.active_at)
                copy.write_row((found.line, found.merchant_id, found.customer_id, found.points, *times))
            if on_line:
                on_line()
    conn.execute(ANALYZE_LINES)
    return lines, problems


def _times(active_at: datetime | None) -> tuple[datetime | None, datetime | None]:
    """Return the time with a zone and the one without: only the database knows the merchant's."""
    return (active_at, None) if active_at is None or active_at.tzinfo else (None, active_at)


def _note_stored(conn: Connection, problems: Problems, columns: Columns) -> None:
    rows = [dict(row._mapping) for row in conn.execute(PROBLEMS, {"row_limit": MAX_PROBLEMS})]
    count = rows[0]["problems"] if rows else 0
    found = [StoredLine(**{name: row[name] for name in row if name != "problems"}) for row in rows]
    problems.note([stored.problem(columns) for stored in found], more=count - len(found))
