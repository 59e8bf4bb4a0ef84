"""`loyalty award`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from loyalty_pipelines.cli.base import database, is_quiet, json_option, require_ready
from loyalty_pipelines.cli.errors import first_line
from loyalty_pipelines.cli.option_types import TEXT
from loyalty_pipelines.cli.output import console, counted, is_terminal, print_json, print_table, say
from loyalty_pipelines.cli.programs import current_user
from loyalty_pipelines.domain.awards import DEFAULT_BATCH_SIZE, AwardReport, Batch, DifferenceCount, MerchantAwards

if TYPE_CHECKING:
    from sqlalchemy import Engine

COLUMNS = ("merchant", "orders", "changed", "unchanged", "skipped", "missing", "queued", "points", "seconds")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What comparing every order found: differences by merchant, and the merchants that failed."""

    merchants: dict[str, DifferenceCount]
    failures: dict[str, str]


@click.command()
@click.option("--merchant", "merchants", type=TEXT, multiple=True, help="Only this merchant; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Work everything out and write nothing.")
@click.option("--sweep", is_flag=True, help="First compare every order with the ledger, also those nobody noted.")
@click.option("--batch-size", type=click.IntRange(1, 100_000), default=DEFAULT_BATCH_SIZE, show_default=True,
              help="Orders in one transaction.")  # fmt: skip
@json_option
def award(merchants: tuple[str, ...], dry_run: bool, sweep: bool, batch_size: int, as_json: bool) -> None:
    """Award the orders that wait in the inbox, now. Running it twice, or beside the sensor, awards nothing twice.

    Exit status 1: a merchant failed, or orders went to the reconciliation queue.
    """
    from loyalty_pipelines.db.drain import DrainOptions, drain

    wanted = tuple(dict.fromkeys(merchants))
    with database(as_json=as_json) as engine:
        _check(engine, wanted)
        swept = _sweep(engine, wanted, is_dry_run=dry_run, as_json=as_json) if sweep else None
        if swept and dry_run:
            _print_differences(swept, as_json=as_json)
            return
        if not dry_run:
            _poll(engine)
        with _progress(engine, wanted, as_json=as_json) as on_batch:
            report = drain(
                engine,
                merchants=sorted(wanted) or None,
                options=DrainOptions(batch_size=batch_size, is_dry_run=dry_run),
                actor=current_user(),
                on_batch=on_batch,
            )
    _print_report(report, swept, as_json=as_json)
    if report.failures or report.total("orders_queued") or (swept and swept.failures):
        click.get_current_context().exit(1)


def _poll(engine: "Engine") -> None:
    """In poll mode, bring what changed in the shop, as the sensor does."""
    from datetime import UTC, datetime

    from loyalty_pipelines.db.capture_run import look_for_orders

    look_for_orders(engine, as_of=datetime.now(UTC))


def _check(engine: "Engine", merchants: Sequence[str]) -> None:
    from loyalty_pipelines.db import programs
    from loyalty_pipelines.db.engine import reading

    with reading(engine) as conn:
        require_ready(conn)
        for merchant_id in merchants:
            programs.require_merchant(conn, merchant_id)


def _sweep(engine: "Engine", merchants: Sequence[str], *, is_dry_run: bool, as_json: bool) -> Sweep:
    """Compare every order of the merchants (none named: all), each in a transaction; enqueue unless it is a dry run."""
    from sqlalchemy.exc import DBAPIError

    from loyalty_pipelines.db import programs
    from loyalty_pipelines.db import sweep as sweep_db
    from loyalty_pipelines.db.engine import is_connection_loss, reading

    with reading(engine) as conn:
        everyone = [one.merchant_id for one in programs.merchants_with_program(conn)]
    found: dict[str, DifferenceCount] = {}
    failures: dict[str, str] = {}
    with _bar("comparing", len(merchants or everyone), "merchants", as_json=as_json) as advance:
        for merchant_id in merchants or everyone:
            try:
                with engine.begin() as conn:
                    found[merchant_id] = sweep_db.count_differences(conn, merchant_id)
                    if not is_dry_run:
                        sweep_db.enqueue_differences(conn, merchant_id)
            except DBAPIError as error:
                if is_connection_loss(error):
                    raise
                # One merchant's trouble must not hide the others.
                failures[merchant_id] = first_line(error.orig or error)
            advance(1)
    return Sweep(merchants=found, failures=failures)


def differing(count: DifferenceCount) -> int:
    """Return how many orders differ."""
    return count.orders_paid + count.orders_unpaid + count.orders_undecided


@contextmanager
def _progress(engine: "Engine", merchants: Sequence[str], *, as_json: bool) -> Iterator[Callable[[Batch], None] | None]:
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.status import count_waiting

    if as_json or is_quiet() or not is_terminal():
        yield None
        return
    with reading(engine) as conn:
        total = count_waiting(conn, merchants)
    with _bar("awarding", total, "orders", as_json=as_json) as advance:
        yield lambda batch: advance(batch.rows_claimed)


@contextmanager
def _bar(verb: str, total: int, noun: str, *, as_json: bool) -> Iterator[Callable[[int], None]]:
    if as_json or is_quiet() or not is_terminal():
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(verb), BarColumn(), MofNCompleteColumn(), TextColumn(noun), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task(verb, total=total)
        yield lambda steps: progress.advance(task, steps)


def _print_differences(swept: Sweep, *, as_json: bool) -> None:
    """Show what a sweep would have to change; exit 1 when a merchant failed or orders would be queued."""
    rows = [(one, swept.merchants[one]) for one in sorted(swept.merchants) if differing(swept.merchants[one])]
    if as_json:
        print_json({"dry_run": True, "differences": swept.merchants, "failures": swept.failures})
    else:
        if rows:
            print_table(
                ("merchant", "orders to award", "points", "to take back", "points back", "to queue"),
                [
                    (
                        name,
                        one.orders_paid,
                        one.points_paid,
                        one.orders_unpaid,
                        one.points_unpaid,
                        one.orders_undecided,
                    )
                    for name, one in rows
                ],
                numbers=("orders to award", "points", "to take back", "points back", "to queue"),
            )
        total = sum(differing(one) for _, one in rows)
        say(f"Different from the ledger: {counted(total, 'order')}. Nothing was written.")
        _print_failures(swept.failures)
    if swept.failures or any(one.orders_undecided for one in swept.merchants.values()):
        click.get_current_context().exit(1)


def _print_report(report: AwardReport, swept: Sweep | None, *, as_json: bool) -> None:
    failures = {**(swept.failures if swept else {}), **report.failures}
    if as_json:
        print_json(
            {
                "dry_run": report.is_dry_run,
                "merchants": [_as_plain(report.merchants[name]) for name in sorted(report.merchants)],
                "failures": failures,
                "total": _as_plain(_total(report)),
                "swept": swept and {name: differing(one) for name, one in swept.merchants.items()},
            }
        )
        return
    if swept:
        found = sum(differing(one) for one in swept.merchants.values())
        say(f"Swept {counted(len(swept.merchants), 'merchant')}: {counted(found, 'order')} differed from the ledger.")
    rows = [_row(report.merchants[name]) for name in sorted(report.merchants)]
    total = _total(report)
    if rows:
        print_table(COLUMNS, [*rows, _row(total)] if len(rows) > 1 else rows, numbers=COLUMNS[1:])
    if not total.rows_claimed and not failures:
        say("No orders wait.")
    else:
        say(
            f"{counted(total.orders_changed, 'order')} changed balances by {total.points_changed:,} points."
            + (" It was a dry run: nothing was written." if report.is_dry_run else "")
        )
    for name in sorted(report.merchants):
        for warning in report.merchants[name].warnings:
            click.echo(f"Warning: {name}: {warning}", err=True)
    _print_failures(failures)
    if total.orders_queued:
        click.echo(
            f"{counted(total.orders_queued, 'order')} could not be decided, now in loyalty.reconciliation_queue: "
            "'loyalty status' counts the reasons.",
            err=True,
        )


def _print_failures(failures: dict[str, str]) -> None:
    for name, text in sorted(failures.items()):
        click.echo(f"Error: merchant {name} failed: {text}", err=True)


def _total(report: AwardReport) -> MerchantAwards:
    names = (
        "batches",
        "rows_claimed",
        "rows_repeated",
        "orders_changed",
        "orders_unchanged",
        "orders_queued",
    )
    names += ("orders_skipped", "orders_missing", "entries_written", "points_changed", "seconds")
    sums: dict[str, Any] = {name: report.total(name) for name in names}
    return MerchantAwards(merchant_id="all", **sums)


def _as_plain(awards: MerchantAwards) -> dict[str, object]:
    names = (
        "merchant_id",
        "orders_changed",
        "orders_unchanged",
        "orders_skipped",
        "orders_missing",
        "orders_queued",
    )
    names += ("rows_claimed", "rows_repeated", "entries_written", "points_changed", "batches", "warnings")
    return {**{name: getattr(awards, name) for name in names}, "seconds": round(awards.seconds, 3)}


def _row(awards: MerchantAwards) -> tuple[object, ...]:
    return (
        awards.merchant_id,
        awards.rows_claimed - awards.rows_repeated,
        awards.orders_changed,
        awards.orders_unchanged,
        awards.orders_skipped,
        awards.orders_missing,
        awards.orders_queued,
        awards.points_changed,
        f"{awards.seconds:.2f}",
    )
