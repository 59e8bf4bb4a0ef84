"""`loyalty notifications`: mails to customers: what waits, why, and what an operator does about it."""

import os
from typing import TYPE_CHECKING

import click

from loyalty_pipelines.cli.base import database, json_option, require_ready
from loyalty_pipelines.cli.option_types import TEXT
from loyalty_pipelines.cli.output import counted, print_json, print_table, say, shown
from loyalty_pipelines.cli.programs import current_user

if TYPE_CHECKING:
    from loyalty_pipelines.domain.notifications import DeliveryReport, Notification

NUMBER = click.IntRange(1, 2**63 - 1)
STATUSES = ("pending", "sent", "failed", "parked", "void")
ONE_OF = "Name one of NUMBER, --merchant M and --all."


@click.group()
def notifications() -> None:
    """Look at mails to customers, send what is due, try again, or give up on some."""


@notifications.command("list")
@click.option("--merchant", type=TEXT, help="Only this merchant's.")
@click.option("--status", type=click.Choice(STATUSES), help="Only those; default: pending, failed and parked.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True,
              help="How many of the newest mails.")  # fmt: skip
@json_option
def list_mails(merchant: str | None, status: str | None, limit: int, as_json: bool) -> None:
    """List the mails that are not delivered, the newest first."""
    from loyalty_pipelines.db import notifications as db
    from loyalty_pipelines.db import programs
    from loyalty_pipelines.db.engine import reading

    with database(as_json=as_json) as engine, reading(engine) as conn:
        require_ready(conn, is_mapping_needed=False)
        if merchant is not None:
            programs.require_merchant(conn, merchant)
        found = db.find_mails(conn, merchant_id=merchant, status=status, limit=limit + 1)
    mails, is_more = found[:limit], len(found) > limit
    if as_json:
        print_json({"mails": mails, "is_more": is_more})
        return
    if not mails:
        say("No mails.")
        return
    print_table(
        ("number", "merchant", "customer", "mail", "since", "tries", "state", "reason"),
        [
            (
                str(one.notification_id),
                one.merchant_id,
                one.customer_id,
                one.template.removeprefix("loyalty_"),
                one.created_at,
                one.attempts,
                _state(one),
                one.last_error,
            )
            for one in mails
        ],
        numbers=("number", "tries"),
    )
    if is_more:
        say(f"The newest {limit:,} mails; --limit shows more.")


@notifications.command()
@click.argument("number", type=NUMBER)
@click.option("--merchant", type=TEXT, help="Its merchant: finds it faster among millions.")
@json_option
def show(number: int, merchant: str | None, as_json: bool) -> None:
    """Show what is known of mail NUMBER. Its address is not: that is looked up when it is sent."""
    from loyalty_pipelines.db import notifications as db
    from loyalty_pipelines.db.engine import reading

    with database(as_json=as_json) as engine, reading(engine) as conn:
        require_ready(conn, is_mapping_needed=False)
        found = db.find_mail(conn, number, merchant_id=merchant)
    if as_json:
        print_json(found)
        return
    _print_mail(found)


@notifications.command()
@click.option("--max", "max_mails", type=click.IntRange(1, 10_000_000), default=100_000, show_default=True,
              help="Stop after so many mails.")  # fmt: skip
@json_option
def send(max_mails: int, as_json: bool) -> None:
    """Send what is due now, as Dagster does; beside it, nothing is sent twice.

    Where to is LOYALTY_MAIL_URL. Exit status 1: the mail server can't be used, or a mail was not taken.
    """
    from loyalty_pipelines.db.notifications_run import DeliveryOptions, deliver
    from loyalty_pipelines.domain.mail_settings import Transport, mail_settings
    from loyalty_pipelines.processes import mail_environment
    from loyalty_pipelines.resources.mail_transports import transport_for

    settings = mail_settings({**os.environ, **mail_environment()})
    if as_json and settings.transport is Transport.CONSOLE:
        raise click.UsageError("The console is where the mails go: leave out --json.")
    with database(as_json=as_json) as engine:
        with engine.connect() as conn:
            require_ready(conn)
        transport = transport_for(settings)
        try:
            options = DeliveryOptions(max_mails=max_mails, max_seconds=float("inf"))
            report = deliver(engine, transport, settings=settings, options=options)
        finally:
            transport.close()
    if as_json:
        print_json({"place": settings.place, **vars(report), "merchants": list(report.merchants.values())})
    else:
        _print_report(report, settings.place)
    if report.server_problem or report.failures or report.total("put_off") or report.total("failed"):
        click.get_current_context().exit(1)


@notifications.command()
@click.argument("number", type=NUMBER, required=False)
@click.option("--merchant", type=TEXT, help="All of this merchant that failed or are parked.")
@click.option("--all", "is_all", is_flag=True, help="All of all merchants that failed or are parked.")
@json_option
def retry(number: int | None, merchant: str | None, is_all: bool, as_json: bool) -> None:
    """Let mail NUMBER be tried again, or all that failed or are parked: with all their tries, from now on."""
    from loyalty_pipelines.db import notifications as db
    from loyalty_pipelines.db import programs

    if [number is not None, merchant is not None, is_all].count(True) != 1:
        raise click.UsageError(ONE_OF)
    with database(as_json=as_json) as engine, engine.begin() as conn:
        require_ready(conn, is_mapping_needed=False)
        if number is not None:
            db.retry_mail(conn, number)
            mails = 1
        else:
            if merchant is not None:
                programs.require_merchant(conn, merchant)
            mails = db.retry(conn, merchant_id=merchant)
    if as_json:
        print_json({"mails": mails})
    else:
        say(f"{counted(mails, 'mail')} due now: Dagster, or 'loyalty notifications send', sends them.")


@notifications.command()
@click.argument("number", type=NUMBER, required=False)
@click.option("--merchant", type=TEXT, help="All of this merchant that failed.")
@click.option("--all", "is_all", is_flag=True, help="All of all merchants that failed.")
@click.option("--reason", type=TEXT, required=True, help="Why; kept with the mail.")
@json_option
def park(number: int | None, merchant: str | None, is_all: bool, reason: str, as_json: bool) -> None:
    """Give up on mail NUMBER, or on all that failed: the customer can't be reached by mail.

    Points of a parked warning may expire at their date.
    """
    from loyalty_pipelines.db import notifications as db
    from loyalty_pipelines.db import programs

    if [number is not None, merchant is not None, is_all].count(True) != 1:
        raise click.UsageError(ONE_OF)
    said = f"{reason} ({current_user()})"
    with database(as_json=as_json) as engine, engine.begin() as conn:
        require_ready(conn, is_mapping_needed=False)
        if number is not None:
            db.park_mail(conn, number, reason=said)
            mails = 1
        else:
            if merchant is not None:
                programs.require_merchant(conn, merchant)
            mails = db.park(conn, merchant_id=merchant, reason=said)
    if as_json:
        print_json({"mails": mails})
    else:
        say(f"{counted(mails, 'mail')} parked: {reason}")


def _state(one: "Notification") -> str:
    if one.status != "pending":
        return one.status
    return f"pending, next try {shown(one.next_attempt_at)}" if one.attempts else "pending"


def _print_mail(one: "Notification") -> None:
    say(f"Mail {one.notification_id}: {one.template}, {one.status}")
    for name, value in (
        ("merchant", one.merchant_id),
        ("customer", one.customer_id),
        ("says", ", ".join(f"{name} {value}" for name, value in one.payload.items()) or None),
        ("key", one.dedupe_key),
        ("since", one.created_at),
        ("tries", one.attempts),
        ("next try", one.next_attempt_at if one.status == "pending" else None),
        ("leased until", one.leased_until),
        ("settled", one.settled_at),
        ("sent as", one.sent_as),
        ("reason", one.last_error),
    ):
        if value is not None:
            say(f"  {name:<15}{shown(value)}")


def _print_report(report: "DeliveryReport", place: str) -> None:
    columns = ("merchant", "sent", "put off", "failed", "parked", "void")
    rows = [
        (one.merchant_id, one.sent, one.put_off, one.failed, one.parked, one.void)
        for _, one in sorted(report.merchants.items())
    ]
    if rows:
        print_table(columns, rows, numbers=columns[1:])
    say(_summary(report, place))
    for problem in report.template_problems:
        click.echo(f"A template was passed over: {problem}", err=True)
    for name, text in sorted(report.failures.items()):
        click.echo(f"Error: merchant {name} failed: {text}", err=True)
    if report.server_problem:
        click.echo(f"Error: {report.server_problem}", err=True)


def _summary(report: "DeliveryReport", place: str) -> str:
    handled = report.total("handled")
    if not handled:
        return "Nothing was sent." if report.server_problem or report.failures else "Nothing was to be sent."
    text = f"Sent {counted(report.total('sent'), 'mail')} of {handled:,} to {place}"
    return f"{text}; 'loyalty notifications list' says why not all." if report.total("sent") < handled else f"{text}."
