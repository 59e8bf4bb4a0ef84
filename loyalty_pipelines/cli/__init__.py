"""The operator's command line, over `db/` and `domain/`; one module per group of commands.

A command module defines commands and imports what is slow (SQLAlchemy, Alembic, pydantic) inside them, so that
`loyalty --help` answers at once. This module lists the commands and defines none. Exit status: 0, 1 (it found a
problem), 2 (bad usage), 130 (interrupted).
"""

import click

from loyalty_pipelines.cli.account import account
from loyalty_pipelines.cli.accounts import accounts
from loyalty_pipelines.cli.alerts import alerts
from loyalty_pipelines.cli.award import award
from loyalty_pipelines.cli.base import LoyaltyGroup, Session
from loyalty_pipelines.cli.contracts import contracts
from loyalty_pipelines.cli.expiry import expire, expiry
from loyalty_pipelines.cli.explain import explain_
from loyalty_pipelines.cli.fixes import apply, approve, history, plan, undo
from loyalty_pipelines.cli.init import init
from loyalty_pipelines.cli.integrity import integrity
from loyalty_pipelines.cli.metrics import metrics
from loyalty_pipelines.cli.notifications import notifications
from loyalty_pipelines.cli.orders import orders
from loyalty_pipelines.cli.programs import programs
from loyalty_pipelines.cli.queue import queue
from loyalty_pipelines.cli.repairs import adjust, merge, restore
from loyalty_pipelines.cli.reports import reports
from loyalty_pipelines.cli.run import demo, up
from loyalty_pipelines.cli.sources import sources
from loyalty_pipelines.cli.status import status
from loyalty_pipelines.cli.subscriptions import subscriptions
from loyalty_pipelines.cli.templates import templates


@click.group(cls=LoyaltyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("--quiet", is_flag=True, help="Say only what was asked for: no progress, no name of the database.")
@click.version_option(package_name="loyalty-pipelines")
@click.pass_context
def main(context: click.Context, debug: bool, quiet: bool) -> None:
    """Award loyalty points for paid orders exactly once, and show that it was so.

    The database is LOYALTY_DATABASE_URL, or a private PostgreSQL under LOYALTY_HOME (.loyalty) when that is not set.
    """
    context.obj = Session(debug=debug, quiet=quiet)


for command in (
    init,
    up,
    demo,
    sources,
    programs,
    orders,
    award,
    account,
    accounts,
    queue,
    expire,
    expiry,
    integrity,
    subscriptions,
    notifications,
    templates,
    status,
    reports,
    alerts,
    contracts,
    metrics,
):
    main.add_command(command)
for subcommand in (explain_, adjust, restore, merge):
    account.add_command(subcommand)
for subcommand in (plan, approve, apply, undo, history):
    subscriptions.add_command(subcommand)
