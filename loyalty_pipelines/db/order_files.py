"""Loads an order file into the sample shop: all of it or nothing, and a second time without effect."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from sqlalchemy import Connection

from loyalty_pipelines.db import programs, sample_shop, sources
from loyalty_pipelines.db.statements import load, read
from loyalty_pipelines.domain.csv_files import MAX_PROBLEMS, Problems, problem
from loyalty_pipelines.domain.order_files import (
    ImportRefusedError,
    ImportReport,
    OrderFormat,
    OrderLine,
    parse_line,
)

CREATE_STAGE = load("order_files/create_stage")
COPY_LINES = read("order_files/copy_lines")
ANALYZE_STAGE = load("order_files/analyze_stage")
REPEATED = load("order_files/repeated")
CURRENCIES = load("order_files/currencies")
LOCK_MERCHANT = load("order_files/lock_merchant")
MERCHANT = load("order_files/merchant")
MERCHANT_IDS = load("order_files/merchant_ids")
ADD_MERCHANT = load("order_files/add_merchant")
ADD_CUSTOMERS = load("order_files/add_customers")
UPSERT_ORDERS = load("order_files/upsert_orders")
UPSERT_REFUNDS = load("order_files/upsert_refunds")
PAID_RANGE = load("order_files/paid_range")

# A programme made by an import applies to the orders of any export, whenever they were paid.
PROGRAM_START = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Into which merchant; `currency` and `timezone` are a new merchant's, `points_per_unit` its programme's."""

    merchant_id: str
    path: str
    actor: str
    is_merchant_creatable: bool = True
    currency: str | None = None
    timezone: str = "UTC"
    points_per_unit: Decimal | None = None


@dataclass
class _Reading:
    """What was met while the file was read."""

    lines: int = 0
    problems: Problems = field(default_factory=Problems)
    statuses: dict[tuple[str, str], int] = field(default_factory=dict)


def prepare(conn: Connection) -> None:
    """Make the sample shop where it is missing; raise `ImportRefusedError` when another shop is mapped."""
    current = sources.current(conn)
    if current is not None and _tables(current) != _tables(sample_shop.mapping()):
        raise ImportRefusedError(
            f"This database reads the orders of {current.orders.relation}, and imported files go to "
            f"{sample_shop.mapping().orders.relation}, which nobody would read: import into another database (set "
            "LOYALTY_DATABASE_URL or LOYALTY_HOME)."
        )
    sample_shop.create(conn)


def _tables(mapping: sample_shop.SourceMapping) -> list[str | None]:
    parts = (mapping.relation(name) for name in ("merchants", "orders", "refunds"))
    return [str(part.relation) if part else None for part in parts]


def merchant_timezone(conn: Connection, merchant_id: str) -> str | None:
    """Return the time zone of a merchant of the sample shop; None when there is no such merchant."""
    row = conn.execute(MERCHANT, {"merchant_id": merchant_id}).one_or_none()
    return None if row is None else row.timezone


def load_file(
    conn: Connection,
    rows: Iterator[tuple[int, list[str]]],
    form: OrderFormat,
    options: ImportOptions,
    *,
    on_line: Callable[[], None] | None = None,
) -> ImportReport:
    """Load `rows` (line number, cells), as `form` reads them, into the sample shop; the caller commits.

    Keeps one line in memory at a time. Raises `FileRefusedError` with the first problems after reading to the
    end, `ImportRefusedError` where the merchant is missing or its currency can't be told; the caller rolls back.
    """
    conn.execute(LOCK_MERCHANT, {"merchant_id": options.merchant_id})
    reading = _stage(conn, rows, form, on_line)
    _refuse_repeated(conn, reading, form)
    if not reading.lines:
        reading.problems.note([problem(None, "file", "a header and no orders", "orders")])
    reading.problems.refuse(options.path)
    currency, timezone, is_new = _merchant(conn, options)
    return _write(conn, reading, form, options, currency=currency, timezone=timezone, is_new=is_new)


def _stage(
    conn: Connection,
    rows: Iterator[tuple[int, list[str]]],
    form: OrderFormat,
    on_line: Callable[[], None] | None,
) -> _Reading:
    conn.execute(CREATE_STAGE)
    reading = _Reading()
    driver = conn.connection.driver_connection
    assert driver is not None
    with driver.cursor() as cursor, cursor.copy(COPY_LINES) as copy:
        for number, cells in rows:
            order, word, problems = parse_line(number, cells, form)
            reading.lines += 1
            reading.problems.note(problems)
            if order:
                copy.write_row(_values(order))
                key = (word.lower(), order.status)
                reading.statuses[key] = reading.statuses.get(key, 0) + 1
            if on_line:
                on_line()
    conn.execute(ANALYZE_STAGE)
    return reading


def _values(order: OrderLine) -> tuple[object, ...]:
    return (
        order.line,
        order.order_id,
        order.customer_id,
        order.amount,
        order.refunded_amount,
        order.currency,
        order.status,
        order.paid_at,
    )


def _refuse_repeated(conn: Connection, reading: _Reading, form: OrderFormat) -> None:
    rows = conn.execute(REPEATED, {"row_limit": MAX_PROBLEMS}).all()
    found = [
        problem(
            row.line,
            form.columns.names["order"],
            f"order {row.order_id!r}, which line {row.first_line} has already",
            "one line per order",
        )
        for row in rows
    ]
    reading.problems.note(found, more=rows[0].repeated - len(rows) if rows else 0)


def _merchant(conn: Connection, options: ImportOptions) -> tuple[str, str, bool]:
    """Return currency and time zone of the merchant, and whether it is new."""
    found = conn.execute(MERCHANT, {"merchant_id": options.merchant_id}).one_or_none()
    if found:
        return found.currency, found.timezone, False
    if not options.is_merchant_creatable:
        known = list(conn.execute(MERCHANT_IDS).scalars())
        raise ImportRefusedError(
            f"The sample shop has no merchant {options.merchant_id!r} (it has {', '.join(known) or 'none'}): name one "
            "of these, or leave --no-create-merchant out."
        )
    in_file = list(conn.execute(CURRENCIES).scalars())
    if options.currency is None and len(in_file) != 1:
        what = f"has orders in {', '.join(in_file)}" if in_file else "has no currency column"
        raise ImportRefusedError(
            f"{options.path} {what}, so the currency of the new merchant {options.merchant_id!r} can't be told: say "
            "--currency EUR (or another)."
        )
    currency = options.currency or in_file[0]
    conn.execute(
        ADD_MERCHANT,
        {"merchant_id": options.merchant_id, "timezone": options.timezone, "currency": currency},
    )
    return currency, options.timezone, True


def _write(
    conn: Connection,
    reading: _Reading,
    form: OrderFormat,
    options: ImportOptions,
    *,
    currency: str,
    timezone: str,
    is_new: bool,
) -> ImportReport:
    merchant = {"merchant_id": options.merchant_id}
    customers = conn.execute(ADD_CUSTOMERS, merchant).rowcount
    orders = conn.execute(UPSERT_ORDERS, {**merchant, "currency": currency}).one()
    has_refunds = "refunded" in form.columns.positions
    refunds = conn.execute(UPSERT_REFUNDS, merchant).scalar_one() if has_refunds else 0
    paid = conn.execute(PAID_RANGE).one()
    has_program = bool(programs.versions(conn, options.merchant_id))
    is_program_wanted = options.points_per_unit is not None and not has_program
    if is_program_wanted:
        programs.set_version(
            conn,
            options.merchant_id,
            changes={"points_per_unit": options.points_per_unit},
            valid_from=PROGRAM_START,
            actor=options.actor,
        )
    return ImportReport(
        merchant_id=options.merchant_id,
        currency=currency,
        timezone=timezone,
        is_merchant_new=is_new,
        lines=reading.lines,
        orders_new=orders.orders_new,
        orders_changed=orders.orders_changed,
        orders_unchanged=reading.lines - orders.orders_new - orders.orders_changed,
        customers_new=customers,
        refunds_changed=refunds,
        first_paid_at=paid.first_paid_at,
        last_paid_at=paid.last_paid_at,
        columns=form.columns.names,
        statuses=reading.statuses,
        has_program=has_program or is_program_wanted,
        is_program_new=is_program_wanted,
    )
