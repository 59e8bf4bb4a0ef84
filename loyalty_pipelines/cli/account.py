"""`loyalty account`: what one customer has, and why."""

from typing import TYPE_CHECKING

import click

from loyalty_pipelines.cli.base import database, json_option, require_ready
from loyalty_pipelines.cli.option_types import TEXT
from loyalty_pipelines.cli.output import print_json, print_table, say, shown
from loyalty_pipelines.domain.accounts import AccountNotFoundError

if TYPE_CHECKING:
    from loyalty_pipelines.domain.accounts import Account


@click.group()
def account() -> None:
    """Look at customers' accounts."""


@account.command()
@click.argument("merchant", type=TEXT)
@click.argument("customer", type=TEXT)
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True,
              help="How many of the newest entries.")  # fmt: skip
@json_option
def show(merchant: str, customer: str, limit: int, as_json: bool) -> None:
    """Show balance, newest ledger entries and open queue items of CUSTOMER (its id) at MERCHANT."""
    from loyalty_pipelines.db import accounts, programs, sources
    from loyalty_pipelines.db.engine import reading

    with database(as_json=as_json) as engine, reading(engine) as conn:
        require_ready(conn, is_mapping_needed=False)
        sources.require_mapping(conn, even_withdrawn=True)
        programs.require_merchant(conn, merchant)
        found = accounts.find_account(conn, merchant, customer)
        items = accounts.open_items(conn, merchant, customer)
        if found is None:
            raise AccountNotFoundError(merchant_id=merchant, customer_id=customer, queued=len(items))
        entries = accounts.newest_entries(conn, found, limit=limit)
    if as_json:
        print_json({"account": found, "entries": entries, "queue": items})
        return
    _print_account(found)
    print_table(
        ("entry", "kind", "points", "balance", "stamps", "reference", "occurred", "recorded", "by", "reason"),
        [
            (
                one.seq,
                one.kind,
                f"{one.points:+,}",
                one.balance_after,
                one.stamps,
                f"{one.reference_type} {one.reference_id}",
                one.occurred_at,
                one.recorded_at,
                one.actor,
                one.reason,
            )
            for one in entries
        ],
        numbers=("entry", "points", "balance", "stamps"),
    )
    if found.entries > len(entries):
        say(f"The newest {len(entries)} of {found.entries:,} entries; --limit shows more.")
    for item in items:
        say(f"Queued since {shown(item.created_at)}: order {item.order_id}, {item.reason} ({item.detail or '-'})")


def _print_account(found: "Account") -> None:
    say(f"Customer {found.customer_id} at {found.merchant_id}{'' if found.is_active else ' (inactive)'}")
    for name, value in (
        ("balance", found.balance),
        ("held", found.held),
        ("spendable", found.spendable),
        ("stamps", found.stamp_count),
        ("last activity", found.last_activity_at),
        ("expires", found.expires_at),
    ):
        say(f"  {name:<15}{shown(value)}")
    if found.parked_reason:
        say(f"  parked         {found.parked_reason}")
