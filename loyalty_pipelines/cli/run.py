"""`loyalty demo` and `loyalty up`: Dagster's own processes, started and ended from here."""

import signal
import subprocess
import time
from types import FrameType
from typing import TYPE_CHECKING

import click

from loyalty_pipelines.cli.base import json_option
from loyalty_pipelines.cli.output import note, print_json, print_table, say

if TYPE_CHECKING:
    from loyalty_pipelines.demo import DemoResult

SHOWN_COLUMNS = ("merchant", "time zone", "currency", "orders", "paid", "accounts", "points", "waiting")


@click.command()
@click.option("--orders", type=click.IntRange(1, 5_000_000), default=100_000, show_default=True, help="Orders to add.")
@click.option("--merchants", type=click.IntRange(1, 99), default=20, show_default=True, help="Merchants of the shop.")
@click.option("--into-this-database", is_flag=True,
              help="Use the database that LOYALTY_DATABASE_URL names, and mail as LOYALTY_MAIL_URL says.")  # fmt: skip
@json_option
def demo(orders: int, merchants: int, into_this_database: bool, as_json: bool) -> None:
    """Make a shop with traffic, let Dagster's sensor and job award its orders, check the result, and stop.

    Running it again adds as many orders. Mails go to files in the folder mails of LOYALTY_HOME, also where
    LOYALTY_MAIL_URL names a server. Some of the shop's subscriptions are wrong, once, so that there is something to
    find and to fix. Exit status 1: a check failed that these mismatches are not the cause of.
    """
    from loyalty_pipelines.demo import run_demo

    result = run_demo(
        orders=orders,
        merchants=merchants,
        into_named_database=into_this_database,
        say=(lambda _: None) if as_json else note,
    )
    if as_json:
        print_json(result)
    else:
        _print_result(result)
    if not result.is_as_expected:
        click.get_current_context().exit(1)


def _print_result(result: "DemoResult") -> None:
    rows = [
        (m.merchant_id, m.timezone, m.currency, m.orders, m.paid_orders, m.accounts, m.points, m.waiting)
        for m in result.merchants
    ]
    totals = [sum(column) for column in zip(*(row[3:] for row in rows), strict=True)]
    print_table(SHOWN_COLUMNS, [*rows, ("all", "", "", *totals)], numbers=SHOWN_COLUMNS[3:])
    failed = dict.fromkeys(result.checks_of_mismatches, "found what is wrong (below)")
    print_table(
        ("check", "result"),
        [(name, "passed" if passed else failed.get(name, "FAILED")) for name, passed in result.checks.items()],
    )
    _print_mismatches(result)
    say(
        f"{result.orders_added:,} orders awarded by the sensor and the job in {result.backlog_seconds:.1f} s, "
        f"{result.orders_paid_late + result.orders_cancelled + result.orders_refunded:,} changes "
        f"in {result.late_seconds:.1f} s; {result.total_seconds:.0f} s in all."
    )
    where = f", in {result.mails_to.removeprefix('folder://')}" if result.mails_to else ""
    say(f"{result.customers_warned:,} customers warned of points about to expire; {result.mails_sent:,} mails{where}.")
    say("To look at it in Dagster's web UI: 'make up' (or 'loyalty up'), then open http://127.0.0.1:3000")


def _print_mismatches(result: "DemoResult") -> None:
    from loyalty_pipelines.domain.money import amount_text, money_text

    if not result.mismatches:
        say("Payments and subscriptions: nothing is wrong.")
        return
    print_table(
        ("what is wrong with subscriptions", "policy", "findings", "at risk"),
        [
            (one.class_name, one.policy, one.findings, amount_text(one.amount, one.currency))
            for one in result.mismatches
        ],
        numbers=("findings", "at risk"),
    )
    say(f"Payments and subscriptions: {money_text(result.money_at_risk)} at risk; what is found twice counts once.")
    say("Policy A is put right automatically, where that is on, P after a person's approval, H by a person only.")
    say("'loyalty subscriptions findings' lists them, 'loyalty subscriptions plan' says what would put them right, and")
    say("'loyalty subscriptions apply --dry-run' tries the automatic fixes without writing anything.")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65_535), default=3000, show_default=True, help="Port of the web UI.")
def up(host: str, port: int) -> None:
    """Run Dagster with its web UI, sensors and schedules until Ctrl-C.

    It has no login of its own: on another address than 127.0.0.1, put a proxy with a login before it.
    """
    from loyalty_pipelines.db.engine import connect
    from loyalty_pipelines.db.migrate import upgrade
    from loyalty_pipelines.processes import dagster_environment, dagster_running, end_leftovers, refuse_busy_port

    environment = dagster_environment()
    end_leftovers(environment)
    refuse_busy_port(host, port)
    engine = connect(environment["LOYALTY_DATABASE_URL"])
    upgrade(engine)
    _warn_without_mapping(engine)
    engine.dispose()
    # A service manager ends with SIGTERM what a person ends with Ctrl-C.
    signal.signal(signal.SIGTERM, _as_interrupt)
    arguments = ["dev", "--host", host, "--port", str(port), "--log-level", "warning"]
    # Its own advice to use a tool that this project doesn't install.
    environment["PYTHONWARNINGS"] = "ignore:Function `dev_command` is superseded"
    try:
        with dagster_running("dagster", arguments, environment=environment, log=None) as process:
            note(f"Starting Dagster; its web UI will be at http://{host}:{port} (Ctrl-C ends it).")
            _until_ready(host, port, process)
            say(f"Ready: http://{host}:{port}")
            status = process.wait()
    except KeyboardInterrupt:
        say("Stopped. What was awarded stays.")
        return
    click.echo(f"Error: Dagster ended by itself with status {status}; its messages are above.", err=True)
    click.get_current_context().exit(1)


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _warn_without_mapping(engine) -> None:
    from loyalty_pipelines.db import sources
    from loyalty_pipelines.db.engine import reading

    with reading(engine) as conn:
        if sources.current(conn) is None:
            note(
                "No source mapping is in force, so the sensors find no orders: 'loyalty sources apply --file F' in "
                "another terminal, or try 'loyalty demo' first."
            )


def _until_ready(host: str, port: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the web server answers, or the process ends."""
    import socket

    while process.poll() is None:
        try:
            with socket.create_connection((host, port), timeout=1):
                return
        except OSError:
            time.sleep(0.3)
