"""`loyalty status`: how the installation stands and what needs a person."""

from typing import TYPE_CHECKING

import click

from loyalty_pipelines.cli.base import database, database_name, json_option
from loyalty_pipelines.cli.errors import first_line
from loyalty_pipelines.cli.output import counted, print_json, print_table, say, shown
from loyalty_pipelines.domain.status import Stage, Status, TriggerState

if TYPE_CHECKING:
    from loyalty_pipelines.domain.status import MappingStatus


@click.command()
@json_option
def status(as_json: bool) -> None:
    """Say how the installation stands and what needs a person (then the exit status is 1)."""
    found = _read(as_json=as_json)
    if as_json:
        print_json(found)
    else:
        _print(found)
    if found.findings:
        click.get_current_context().exit(1)


def _read(*, as_json: bool) -> Status:
    from sqlalchemy.exc import DBAPIError

    from loyalty_pipelines.db.engine import is_connection_loss, reading
    from loyalty_pipelines.db.status import read_status

    try:
        with database(as_json=as_json) as engine, reading(engine) as conn:
            return read_status(conn, database=database_name())
    except DBAPIError as error:
        if not is_connection_loss(error):
            raise
        text = first_line(error.orig or error)
        advice = (
            f"The database can't be reached ({text}): start the server, or set LOYALTY_DATABASE_URL to one that runs."
        )
        return Status(database=database_name(), stage=Stage.UNREACHABLE, advice=advice, error=text, findings=(advice,))


def _print(found: Status) -> None:
    _line("database", found.database)
    if found.stage is not Stage.UNREACHABLE:
        _line("server", f"PostgreSQL {found.server_version}")
        _line("schema", found.schema_version or "not installed")
    if found.mapping:
        _print_mapping(found.mapping)
    elif found.stage is Stage.NOT_MAPPED:
        _line("source", "no mapping in force")
    if found.merchants:
        one = found.merchants
        _line(
            "merchants",
            f"{one.in_shop} active: {one.with_program} with a programme, {one.without_program} without",
        )
    if found.expected_version and found.stage is not Stage.OTHER_VERSION:
        _print_work(found)
    say()
    if not found.findings:
        say("Nothing needs you.")
    for finding in found.findings:
        say(f"! {finding}")


def _print_mapping(mapping: "MappingStatus") -> None:
    _line(
        "source",
        f"{mapping.orders_relation or '-'}, applied {shown(mapping.applied_at)} by {mapping.applied_by}",
    )
    enabled = sum(one.state is TriggerState.ENABLED for one in mapping.triggers)
    of_triggers = f", {enabled} of {counted(len(mapping.triggers), 'trigger')} enabled" if mapping.triggers else ""
    _line("capture", f"{mapping.capture or '-'}{of_triggers}")


def _print_work(found: Status) -> None:
    last = found.last_batch
    _line(
        "last batch",
        f"{shown(last.age)} ago by {last.actor}: {counted(last.orders_changed, 'order')} of {last.merchant_id}, "
        f"{last.points_changed:+,} points"
        if last
        else "none yet",
    )
    _line(
        "waiting",
        f"{counted(found.waiting_orders, 'order')} of {counted(found.waiting_merchants, 'merchant')}",
    )
    if found.waiting:
        print_table(
            ("merchant", "orders", "oldest for"),
            [(one.merchant_id, one.orders, one.age) for one in found.waiting],
            numbers=("orders", "oldest for"),
        )
    _line("queue", f"{sum(one.items for one in found.queue):,} open")
    if found.queue:
        print_table(
            ("reason", "items", "merchants", "oldest since"),
            [(one.reason, one.items, one.merchants, one.oldest_at) for one in found.queue],
            numbers=("items", "merchants"),
        )


def _line(name: str, value: str) -> None:
    say(f"{name:<12}{value}")
