"""`loyalty award`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from loyalty_pipelines.cli.base import database, is_quiet, json_option, require_ready
from loyalty_pipelines.cli.option_types import TEXT
from loyalty_pipelines.cli.output import counted, is_terminal, print_json, print_table, say
from loyalty_pipelines.cli.programs import current_user
from loyalty_pipelines.cli.progress import progress_bar
from loyalty_pipelines.domain.awards import DEFAULT_BATCH_SIZE, AwardReport, Batch, MerchantAwards

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from loyalty_pipelines.db.sweep_run import NotedMerchant, SweptMerchant

Merchant = TypeVar("Merchant")

COLUMNS = ("merchant", "orders", "changed", "unchanged", "skipped", "missing", "queued", "points", "seconds")


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
    from loyalty_pipelines.db.sweep_run import note_differences, sweep_merchants

    wanted = tuple(dict.fromkeys(merchants))
    with database(as_json=as_json) as engine:
        _check(engine, wanted)
        if sweep and dry_run:
            compare = partial(sweep_merchants, is_dry_run=True)
            _print_differences(_watched(engine, wanted, compare, as_json=as_json), as_json=as_json)
            return
        noted = _watched(engine, wanted, note_differences, as_json=as_json) if sweep else None
        unpolled = _poll(engine, is_dry_run=dry_run)
        with _progress(engine, wanted, as_json=as_json) as on_batch:
            report = drain(
                engine,
                merchants=sorted(wanted) or None,
                options=DrainOptions(batch_size=batch_size, is_dry_run=dry_run),
                actor=current_user(),
                on_batch=on_batch,
            )
        if noted is not None:
            _note_sweep(engine, noted, report)
    _print_report(report, noted, unpolled, as_json=as_json)
    if report.failures or report.total("orders_queued") or any(one.failure for one in noted or ()):
        click.get_current_context().exit(1)


def _note_sweep(engine: "Engine", noted: Sequence["NotedMerchant"], report: AwardReport) -> None:
    from loyalty_pipelines.db.merchant_jobs_run import note_merchants
    from loyalty_pipelines.db.sweep_run import SWEEP_JOB

    failures = {**{one.merchant_id: one.failure for one in noted if one.failure}, **report.failures}
    swept = {one.merchant_id for one in noted}
    note_merchants(
        engine,
        job=SWEEP_JOB,
        served=swept,
        failures={merchant_id: text for merchant_id, text in failures.items() if merchant_id in swept},
        run_id=None,
    )


def _poll(engine: "Engine", *, is_dry_run: bool) -> int:
    """In poll mode, bring what changed in the shop, as the sensor does; return how many a dry run leaves there."""
    from loyalty_pipelines.db.capture_run import count_changed, look_for_orders

    if is_dry_run:
        return count_changed(engine)
    look_for_orders(engine)
    return 0


def _check(engine: "Engine", merchants: Sequence[str]) -> None:
    from loyalty_pipelines.db import programs
    from loyalty_pipelines.db.engine import reading

    with reading(engine) as conn:
        require_ready(conn)
        for merchant_id in merchants:
            programs.require_merchant(conn, merchant_id)


def _watched(
    engine: "Engine",
    merchants: Sequence[str],
    sweep: Callable[["Engine", Sequence[str]], Iterator[Merchant]],
    *,
    as_json: bool,
) -> list[Merchant]:
    """Return what `sweep` yields for the merchants (none named: all with a programme), behind a progress bar."""
    from loyalty_pipelines.db import programs
    from loyalty_pipelines.db.engine import reading

    if not merchants:
        with reading(engine) as conn:
            merchants = [one.merchant_id for one in programs.merchants_with_program(conn)]
    done = []
    with progress_bar("comparing", len(merchants), "merchants", as_json=as_json) as advance:
        for one in sweep(engine, merchants):
            done.append(one)
            advance(1)
    return done


@contextmanager
def _progress(engine: "Engine", merchants: Sequence[str], *, as_json: bool) -> Iterator[Callable[[Batch], None] | None]:
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.status import count_waiting

    if as_json or is_quiet() or not is_terminal():
        yield None
        return
    with reading(engine) as conn:
        total = count_waiting(conn, merchants)
    with progress_bar("awarding", total, "orders", as_json=as_json) as advance:
        yield lambda batch: advance(batch.rows_claimed)


def _print_differences(swept: Sequence["SweptMerchant"], *, as_json: bool) -> None:
    """Show what a sweep would have to change; exit 1 when a merchant failed or orders would be queued."""
    found = {one.merchant_id: one.found for one in swept if one.found is not None}
    failures = {one.merchant_id: one.failure for one in swept if one.failure is not None}
    rows = [(name, found[name]) for name in sorted(found) if found[name].orders]
    if as_json:
        print_json({"dry_run": True, "differences": found, "failures": failures})
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
        total = sum(one.orders for _, one in rows)
        say(f"Different from the ledger: {counted(total, 'order')}. Nothing was written.")
        _print_failures(failures)
    if failures or any(one.orders_undecided for one in found.values()):
        click.get_current_context().exit(1)


def _print_report(
    report: AwardReport, noted: Sequence["NotedMerchant"] | None, unpolled: int, *, as_json: bool
) -> None:
    failures = {**{one.merchant_id: one.failure for one in noted or () if one.failure}, **report.failures}
    swept = None if noted is None else {one.merchant_id: one.orders for one in noted if one.failure is None}
    if as_json:
        print_json(
            {
                "dry_run": report.is_dry_run,
                "merchants": [_as_plain(report.merchants[name]) for name in sorted(report.merchants)],
                "failures": failures,
                "total": _as_plain(_total(report)),
                "swept": swept,
                "orders_not_polled": unpolled,
            }
        )
        return
    if swept is not None:
        say(f"Swept {counted(len(swept), 'merchant')}: {counted(sum(swept.values()), 'order')} to look at.")
    rows = [_row(report.merchants[name]) for name in sorted(report.merchants)]
    total = _total(report)
    if rows:
        print_table(COLUMNS, [*rows, _row(total)] if len(rows) > 1 else rows, numbers=COLUMNS[1:])
    if not total.rows_claimed and not failures:
        say("No orders wait in the inbox." if unpolled else "No orders wait.")
    else:
        say(
            f"{counted(total.orders_changed, 'order')} changed balances by {total.points_changed:,} points."
            + (" It was a dry run: nothing was written." if report.is_dry_run else "")
        )
    if total.accounts_enrolled:
        say(
            f"{counted(total.accounts_enrolled, 'new customer')} enrolled, with {total.bonus_points:,} points of "
            "welcome bonus."
        )
    if unpolled:
        say(
            f"{counted(unpolled, 'more order')} changed in the shop since the last poll; a dry run does not bring "
            "them: 'loyalty award --sweep --dry-run' counts what they deserve."
        )
    for name in sorted(report.merchants):
        for warning in report.merchants[name].warnings:
            click.echo(f"Warning: {name}: {warning}", err=True)
    _print_failures(failures)
    if total.orders_queued:
        click.echo(
            f"{counted(total.orders_queued, 'order')} could not be decided, now in loyalty.reconciliation_queue: "
            "'loyalty queue list' says why.",
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
    names += ("orders_skipped", "orders_missing", "entries_written", "points_changed", "accounts_enrolled")
    names += ("bonus_points", "seconds")
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
    names += ("rows_claimed", "rows_repeated", "entries_written", "points_changed", "accounts_enrolled")
    names += ("bonus_points", "batches", "warnings")
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
