"""`loyalty queue`: point updates that failed, and what an operator does about them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from loyalty_pipelines.cli.base import database, json_option, require_ready
from loyalty_pipelines.cli.option_types import TEXT
from loyalty_pipelines.cli.output import counted, print_json, print_table, say, shown
from loyalty_pipelines.cli.programs import current_user

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from loyalty_pipelines.domain.queue import MerchantTries, QueuedUpdate, QueueReport

NUMBER = click.IntRange(1, 2**63 - 1)


@click.group()
def queue() -> None:
    """Look at point updates that failed, try them again, or settle them."""


@queue.command("list")
@click.option("--merchant", type=TEXT, help="Only this merchant's.")
@click.option("--parked", is_flag=True, help="Only items that are not tried any more.")
@click.option("--all", "is_all", is_flag=True, help="Resolved items, too.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True,
              help="How many of the newest items.")  # fmt: skip
@json_option
def list_items(merchant: str | None, parked: bool, is_all: bool, limit: int, as_json: bool) -> None:
    """List what waits in the reconciliation queue, the newest first."""
    from loyalty_pipelines.db import programs
    from loyalty_pipelines.db import queue as db
    from loyalty_pipelines.db.engine import reading

    with database(as_json=as_json) as engine, reading(engine) as conn:
        require_ready(conn, is_mapping_needed=False)
        if merchant is not None:
            programs.require_merchant(conn, merchant)
        found = db.find_items(conn, merchant_id=merchant, is_parked=parked, is_all=is_all, limit=limit + 1)
    items, is_more = found[:limit], len(found) > limit
    if as_json:
        print_json({"items": items, "is_more": is_more})
        return
    if not items:
        say("No items.")
        return
    print_table(
        ("number", "merchant", "customer", "order", "operation", "reason", "earn", "redeem", "tries", "since", "state"),
        [
            (
                str(one.queue_id),
                one.merchant_id or None,
                one.customer_id,
                one.order_id,
                one.operation,
                one.reason,
                one.points_earned,
                one.points_redeemed,
                one.tries,
                one.created_at,
                _state(one),
            )
            for one in items
        ],
        numbers=("number", "earn", "redeem", "tries"),
    )
    if is_more:
        say(f"The newest {limit:,} items; --limit shows more.")


@queue.command()
@click.argument("number", type=NUMBER)
@json_option
def show(number: int, as_json: bool) -> None:
    """Show item NUMBER with everything that is known of it."""
    from loyalty_pipelines.db import queue as db
    from loyalty_pipelines.db.engine import reading

    with database(as_json=as_json) as engine, reading(engine) as conn:
        require_ready(conn, is_mapping_needed=False)
        found = db.item(conn, number)
    if as_json:
        print_json(found)
        return
    _print_item(found)


@queue.command()
@click.argument("number", type=NUMBER, required=False)
@click.option("--merchant", type=TEXT, help="All items of this merchant.")
@click.option("--everything", is_flag=True, help="All items of all merchants.")
@json_option
def retry(number: int | None, merchant: str | None, everything: bool, as_json: bool) -> None:
    """Try item NUMBER now, or all of a merchant, or all; parked ones too.

    What is in the ledger already is not done again. Exit status 1: a merchant failed, or a tried item still waits.
    """
    if [number is not None, merchant is not None, everything].count(True) != 1:
        raise click.UsageError("Name one of NUMBER, --merchant M and --everything.")
    with database(as_json=as_json) as engine:
        report = _retry_item(engine, number) if number is not None else _retry_all(engine, merchant)
    if as_json:
        print_json({"merchants": list(report.merchants.values()), "failures": report.failures})
    else:
        _print_report(report)
    if report.failures or report.total("waiting"):
        click.get_current_context().exit(1)


@queue.command()
@click.argument("number", type=NUMBER)
@click.option("--reason", type=TEXT, required=True, help="Why it needs no more tries; kept with the item.")
@click.option("--actor", type=TEXT, help="Who decided it (you).")
def resolve(number: int, reason: str, actor: str | None) -> None:
    """Settle item NUMBER by hand: no more tries, no points.

    What a paid order still owes is waived with it. An order that could not be decided stays away until the shop
    changes it.
    """
    from loyalty_pipelines.db import queue as db

    with database() as engine, engine.begin() as conn:
        require_ready(conn, is_mapping_needed=False)
        found = db.resolve(conn, number, reason=reason, actor=actor or current_user())
    say(f"Item {number} (order {found.order_id}, {found.reason}) is resolved by {found.resolved_by}: {reason}")


@queue.command()
@click.argument("merchant", type=TEXT)
@click.argument("customer", type=TEXT)
def unpark(merchant: str, customer: str) -> None:
    """Let parked items of CUSTOMER at MERCHANT be tried again.

    From now on and as often as new ones. CUSTOMER is the shop's id.
    """
    from loyalty_pipelines.db import queue as db

    with database() as engine, engine.begin() as conn:
        require_ready(conn, is_mapping_needed=False)
        items = db.unpark(conn, merchant, customer)
    say(f"Unparked {counted(items, 'item')} of customer {customer}: Dagster, or 'loyalty queue retry', tries it next.")


def _retry_item(engine: "Engine", number: int) -> "QueueReport":
    from loyalty_pipelines.db import queue as db
    from loyalty_pipelines.db.queue_run import drain_queue

    with engine.begin() as conn:
        require_ready(conn)
        found = db.make_item_due(conn, number)
    return drain_queue(engine, merchants=[found.merchant_id], only=number, actor=current_user())


def _retry_all(engine: "Engine", merchant: str | None) -> "QueueReport":
    from loyalty_pipelines.db import programs
    from loyalty_pipelines.db import queue as db
    from loyalty_pipelines.db.queue_run import drain_queue

    with engine.begin() as conn:
        require_ready(conn)
        if merchant is not None:
            programs.require_merchant(conn, merchant)
        db.make_due(conn, merchant_id=merchant)
    return drain_queue(engine, merchants=None if merchant is None else [merchant], actor=current_user())


def _state(one: "QueuedUpdate") -> str:
    if one.resolved_at is not None:
        return f"resolved: {one.resolution}"
    if one.parked_at is not None:
        return "parked"
    if one.blocked_by is not None:
        return f"waits for item {one.blocked_by}"
    return f"next try {shown(one.next_try_at)}"


def _print_item(one: "QueuedUpdate") -> None:
    say(f"Item {one.queue_id}: {one.operation} of order {one.order_id}, {one.reason}")
    for name, value in (
        ("merchant", one.merchant_id or "not known yet"),
        ("customer", one.customer_id),
        ("detail", one.detail),
        ("points earned", one.points_earned),
        ("redeemed", one.points_redeemed),
        ("order total", one.order_total),
        ("since", one.created_at),
        ("last seen", f"{shown(one.last_seen_at)}, {counted(one.attempts, 'time')}"),
        ("tries", one.tries),
        ("last run", one.run_id),
        ("state", _state(one)),
        ("resolved", f"{shown(one.resolved_at)} by {one.resolved_by or 'the pipeline'}" if one.resolved_at else None),
    ):
        if value is not None:
            say(f"  {name:<15}{shown(value)}")


def _print_report(report: "QueueReport") -> None:
    columns = ("merchant", "tried", "applied", "found done", "void", "orders decided", "still wait", "parked")
    rows = [_row(report.merchants[name]) for name in sorted(report.merchants)]
    if rows:
        print_table(columns, rows, numbers=columns[1:])
    say(_summary(report))
    for name, text in sorted(report.failures.items()):
        click.echo(f"Error: merchant {name or '(unknown)'} failed: {text}", err=True)


def _row(one: "MerchantTries") -> Sequence[object]:
    return (
        one.merchant_id or None,
        one.tried,
        one.applied,
        one.found_done,
        one.void,
        one.orders - one.orders_waiting,
        one.waiting,
        one.parked + one.orders_parked,
    )


def _summary(report: "QueueReport") -> str:
    tried, waiting = report.total("tried"), report.total("waiting")
    if not tried:
        return "Nothing was to be tried."
    text = f"Tried {counted(tried, 'item')}: {tried - waiting:,} done, {waiting:,} still in the queue"
    return f"{text}; 'loyalty queue list' says why." if waiting else f"{text}."
